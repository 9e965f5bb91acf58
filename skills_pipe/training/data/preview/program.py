"""What :mod:`skills_pipe.training.data.preview.__main__` does, behind the imports that take seconds."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import rich
from transformers.utils.logging import disable_progress_bar

from skills_pipe.artifacts.atomic import write_text
from skills_pipe.errors import UserError
from skills_pipe.training.data.inspection.arguments import count, data_parser, parse, positive, training_config
from skills_pipe.training.data.inspection.opening import OpenedData, open_data
from skills_pipe.training.data.inspection.selection import Selection
from skills_pipe.training.data.preview.page import page
from skills_pipe.training.data.preview.samples import shown_documents
from skills_pipe.training.data.preview.text import render
from skills_pipe.training.data.rows import Row

PROGRAM: Final = "skills_pipe.training.data.preview"

_POOL: Final = 2000
"""Rows, spread over the data, that ``--seed`` chooses from."""


def main(argv: Sequence[str] | None = None) -> int:
    """Show rows as the arguments say; returns the exit status."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        arguments, overrides = parse(_parser(), sys.argv[1:] if argv is None else argv)
        config = training_config(arguments, overrides)
        most = 0 if arguments.seed is None else _POOL
        data = open_data(config, most)
        _show(arguments, data)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _show(arguments: argparse.Namespace, data: OpenedData) -> None:
    documents = shown_documents(_rows(arguments, data), data.recipe, arguments.num_samples)
    console = rich.get_console()
    facts = _facts(data)
    for label, value in [*facts, ("trained", "what stands between ⟦ and ⟧")]:
        console.print(f"{label}: {value}", highlight=False, markup=False, soft_wrap=True)
    for warning in data.warnings:
        console.print(f"warning: {warning}", style="bold yellow", highlight=False, markup=False, soft_wrap=True)
    for note in data.notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    for document in documents:
        console.print()
        console.print(render(document, ids=arguments.ids), soft_wrap=True, highlight=False)
    if arguments.html:
        write_text(arguments.html, page("Training data", facts, documents))
        console.print(f"\nwritten: {arguments.html}", highlight=False, markup=False, soft_wrap=True)


def _rows(arguments: argparse.Namespace, data: OpenedData) -> Iterable[Row]:
    """The first rows, or some chosen by a seed; those of the validation data if these are wanted."""
    selection: Selection = data.train
    if arguments.validation:
        if data.validation is None:
            raise UserError("there is no validation data", where="--validation", fix="name it by --validation_data")
        selection = data.validation
    rows = islice(selection.rows(), arguments.first, None)
    if arguments.seed is None:
        return rows
    pool = list(rows)
    return random.Random(arguments.seed).sample(pool, min(arguments.num_samples, len(pool)))


def _facts(data: OpenedData) -> list[tuple[str, str]]:
    recipe = data.recipe
    settings = recipe.settings
    rows = f"{data.train.total:,}" + (f", and {data.validation.total:,} for validation" if data.validation else "")
    return [
        ("rows", rows),
        ("tokenizer", str(recipe.tokenizer.name_or_path)),
        ("limit", f"{settings.max_length:,} tokens, longer ones: {settings.overlong}"),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = data_parser(PROGRAM, "Show what is trained of some rows, token by token.")
    parser.add_argument("--num_samples", type=positive, default=3, metavar="N", help="rows to show (default: 3)")
    parser.add_argument("--first", type=count, default=0, metavar="N", help="rows to pass over (default: 0)")
    parser.add_argument("--seed", type=count, metavar="N", help="show rows chosen at random by this seed")
    parser.add_argument("--validation", action="store_true", help="show rows of the validation data")
    parser.add_argument("--ids", action="store_true", help="print the token ids too")
    parser.add_argument("--html", type=Path, metavar="PATH", help="also write one page for a browser")
    return parser
