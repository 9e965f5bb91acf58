"""What the demo trains on: graded generations of a pretended model, as `ns generate` would leave them, some wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from skills_pipe.evaluation.benchmarks.arithmetic.problems import training_generations

TRAINING_ROWS = 20_000
VALIDATION_ROWS = 512
FILES = 4


def write_generations(folder: Path) -> list[str]:
    """Write ``train/output-rsK.jsonl`` and ``validation/output-rs0.jsonl``; returns texts to train a tokenizer on."""
    train = list(training_generations(TRAINING_ROWS, seed=0))
    validation = list(training_generations(VALIDATION_ROWS, seed=1))
    for number in range(FILES):
        _write_rows(folder / "train" / f"output-rs{number}.jsonl", islice(train, number, None, FILES))
    _write_rows(folder / "validation" / "output-rs0.jsonl", validation)
    return list(_texts(train))


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))


def _texts(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield row["problem"]
        yield row["generation"]
