"""Small data sets for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skills_pipe.training.prepare.processor import Processor, Workspace, batched

GOLDEN = Path(__file__).parents[1] / "golden" / "A"
CHATML = str(GOLDEN / "tokenizers" / "chatml")
CHATML_WITH_KEYWORDS = str(GOLDEN / "tokenizers" / "chatml_kw")
NO_TEMPLATE = str(GOLDEN / "tokenizers" / "base_no_template")


def solution(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A correct solution of problem ``number``."""
    row = {
        "problem": f"What is {number} + 1?",
        "generation": f"It is \\boxed{{{number + 1}}}",
        "expected_answer": str(number + 1),
        "symbolic_correct": True,
    }
    return row | changes


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    """Put rows into a JSON-lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_rows(path: Path) -> list[Any]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def run_through(processor: Processor, entries: Iterable[Any], scratch: Path) -> list[Any]:
    """What a processor makes of entries."""
    stream = processor.stream(batched(entries), Workspace(scratch=scratch))
    return [entry for batch in stream for entry in batch]
