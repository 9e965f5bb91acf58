"""Arguments of the programs that look at data: a file, a model, and the keys that training would get."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from skills_pipe.errors import ConfigError, OptionError
from skills_pipe.training.config import ConfigErrors, TrainingConfig, load_config
from skills_pipe.training.config.quoted import quoted

_KEYS: Final = {
    "file": "data.train_data_path",
    "validation_data": "data.val_data_path",
    "hf_model": "policy.model_name",
}
"""Argument -> the key that it sets."""

_OVERRIDE: Final = re.compile(r"\+|~|[\w.]+=")
"""How a word of Hydra's grammar begins; a path with folders never does."""


def data_parser(program: str, description: str) -> argparse.ArgumentParser:
    """A parser that knows what both programs know; ``program`` is the name of the module."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        usage="%(prog)s [FILE] [options] [++key=value ...]",
        description=description,
        epilog="FILE has the rows to train on: data.train_data_path. Words with = are overrides of the training "
        "configuration, as in docs/configuration.md.",
        allow_abbrev=False,
    )
    parser.add_argument("--hf_model", metavar="PATH|ID", help="model whose tokenizer is used: policy.model_name")
    parser.add_argument("--validation_data", metavar="PATH", help="rows to validate on: data.val_data_path")
    parser.add_argument("--config", type=Path, help="YAML file of a training run, laid over the packaged defaults")
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The arguments, and the overrides among them.

    Raises:
        OptionError: a word is neither.
    """
    # FILE is no argument of the parser, which would take the first override for it.
    arguments, words = parser.parse_known_args(argv)
    overrides = [word for word in words if _OVERRIDE.match(word)]
    files = [word for word in words if not _OVERRIDE.match(word)]
    strange = [word for word in files if word.startswith("-")] or files[1:]
    if strange:
        raise OptionError(
            f"{strange[0]!r} is neither an option nor ++key=value", fix=f"see {parser.prog} --help for the options"
        )
    arguments.file = files[0] if files else None
    return arguments, overrides


def training_config(arguments: argparse.Namespace, overrides: Sequence[str]) -> TrainingConfig:
    """The configuration that training would have; the options count more than the file, the overrides most.

    Raises:
        ConfigError: see :func:`load_config`.
    """
    given = {key: getattr(arguments, name) for name, key in _KEYS.items()}
    words = [f"++{key}={quoted(value)}" for key, value in given.items() if value is not None]
    try:
        return load_config(arguments.config, [*words, *overrides])
    except ConfigErrors as errors:
        raise ConfigErrors([_with_its_argument(problem) for problem in errors.problems]) from None
    except ConfigError as problem:
        raise _with_its_argument(problem) from None


def _with_its_argument(problem: ConfigError) -> ConfigError:
    """A model that nobody has named, told with the argument that names it."""
    if problem.what != f"{_KEYS['hf_model']} is not set":
        return problem
    return ConfigError(problem.what, where=problem.where, fix="add --hf_model=PATH or --hf_model=ID")


def count(text: str) -> int:
    """A number of at least 0, for ``type=`` of an argument."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("a number of 0 or more")
    return number


def positive(text: str) -> int:
    """A number above 0, for ``type=`` of an argument."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("a number above 0")
    return number
