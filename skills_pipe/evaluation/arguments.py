"""Command lines of the programs here: options ``--name=value``, names, and ``++key=value`` overrides."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from skills_pipe.errors import OptionError, did_you_mean


def parse_known(
    parser: argparse.ArgumentParser, argv: Sequence[str]
) -> tuple[argparse.Namespace, list[str], list[str]]:
    """Options, plain words and overrides of a command line.

    Raises:
        OptionError: an option is unknown, or its value is missing or malformed.
    """
    parser.error = _refuse  # type: ignore[method-assign]
    options, rest = parser.parse_known_args(list(argv))
    words: list[str] = []
    overrides: list[str] = []
    for token in rest:
        if token.startswith("--"):
            flag = token.partition("=")[0]
            known = [name for action in parser._actions for name in action.option_strings]
            raise OptionError(f"unknown option {flag}", fix=did_you_mean(flag, known) or f"see {parser.prog} --help")
        (overrides if "=" in token or token.startswith(("+", "~")) else words).append(token)
    return options, words, overrides


def _refuse(message: str) -> NoReturn:
    raise OptionError(message)
