"""What :mod:`skills_pipe.training.data.doctor.__main__` does, behind the imports that take seconds."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import rich
from transformers.utils.logging import disable_progress_bar

from skills_pipe.errors import ConfigError, UserError
from skills_pipe.training.config import TrainingConfig
from skills_pipe.training.data.doctor.diagnosis import Diagnosis, diagnose
from skills_pipe.training.data.doctor.findings import Finding, Severity, findings
from skills_pipe.training.data.doctor.histogram import draw_png
from skills_pipe.training.data.doctor.show import as_json, show
from skills_pipe.training.data.inspection.arguments import count, data_parser, parse, training_config
from skills_pipe.training.data.inspection.opening import open_data
from skills_pipe.training.models.positions import trained_positions
from skills_pipe.training.models.spec import ModelSpec, load_model_config

PROGRAM: Final = "skills_pipe.training.data.doctor"

MAX_ROWS: Final = 10_000
"""Rows that are read unless more are asked for; a few seconds."""


def main(argv: Sequence[str] | None = None) -> int:
    """Examine data as the arguments say; returns the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        arguments, overrides = parse(_parser(), sys.argv[1:] if argv is None else argv)
        config = training_config(arguments, overrides)
        data = open_data(config, arguments.max_rows)
        diagnosis = diagnose(data, config, arguments.lengths, positions=_positions(config))
        found = findings(diagnosis)
        _tell(arguments, diagnosis, found)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return int(any(finding.severity is Severity.ERROR for finding in found))


def _positions(config: TrainingConfig) -> int | None:
    """Of the model; a folder with a tokenizer alone is enough for all else that is examined."""
    spec = ModelSpec(name=config.policy.model_name, overrides=config.policy.hf_config_overrides)
    with suppress(ConfigError):
        return trained_positions(load_model_config(spec))
    return None


def _tell(arguments: argparse.Namespace, diagnosis: Diagnosis, found: Sequence[Finding]) -> None:
    if arguments.png:
        draw_png(diagnosis.train.lengths, arguments.png, limit=diagnosis.limit)
    if arguments.json:
        print(json.dumps(as_json(diagnosis, found), indent=2, ensure_ascii=False))
        return
    show(diagnosis, found, rich.get_console())
    if arguments.png:
        print(f"written: {arguments.png}")


def _parser() -> argparse.ArgumentParser:
    parser = data_parser(PROGRAM, "Examine training data: what is wrong with it, and what it will cost.")
    parser.add_argument(
        "--max_rows",
        type=count,
        default=MAX_ROWS,
        metavar="N",
        help=f"rows to read of training and of validation data, spread over longer ones (default: {MAX_ROWS}); 0: all",
    )
    parser.add_argument(
        "--lengths", type=_lengths, default=(), metavar="N,N,...", help="limits of the length to plan with"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    parser.add_argument("--png", type=Path, metavar="PATH", help="also write the histogram of the lengths as a picture")
    return parser


def _lengths(text: str) -> tuple[int, ...]:
    numbers = tuple(int(word) for word in text.split(","))
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError("numbers above 0")
    return numbers
