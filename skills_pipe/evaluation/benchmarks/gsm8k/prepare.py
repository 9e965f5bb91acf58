"""Data of GSM8K, from the data set ``openai/gsm8k`` of the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skills_pipe.errors import DataError, first_line
from skills_pipe.evaluation.benchmarks.spec import SplitData

_CALCULATOR_NOTE: Final = re.compile(r"<<.*?>>")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which version of which data set; a branch is resolved to its commit, and the commit is recorded."""

    repo: str = "openai/gsm8k"
    revision: str = "main"


def load_split(split: str, options: Options) -> SplitData:
    """Download one split (it stays in the hub's cache) and read it row by row.

    Raises:
        DataError: the hub cannot be reached, or has no such data set, revision or split.
    """
    from httpx import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    file = f"main/{split}-00000-of-00001.parquet"
    try:
        path = hf_hub_download(options.repo, file, repo_type="dataset", revision=options.revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, HTTPError, OSError) as error:
        reason = first_line(error)
        raise DataError(
            f"cannot download {file} of {options.repo}@{options.revision}: {reason}",
            where="benchmark gsm8k",
            fix="check the network, HF_ENDPOINT and HF_TOKEN, or copy gsm8k/*.jsonl into the data folder yourself",
        ) from error
    facts = {"repo": options.repo, "revision": options.revision, "commit": Path(path).parent.parent.name}
    return SplitData(rows=_read(Path(path)), facts=facts)


def to_row(question: str, answer: str) -> dict[str, Any]:
    """A row of the original in the field names of this project.

    ``answer`` is a worked solution with calculator notes ``<<3*4=12>>``, then ``####`` and a number.

    Raises:
        DataError: there is no number after ``####``.
    """
    worked, separator, number = answer.rpartition("####")
    try:
        value = float(number.strip().replace(",", ""))
    except ValueError:
        value = float("nan")
    if not separator or value != value:
        raise DataError(f"no number after '####' in the answer to {question[:60]!r}", where="benchmark gsm8k")
    return {
        "problem": question,
        "expected_answer": int(value) if value.is_integer() else value,
        "reference_solution": _CALCULATOR_NOTE.sub("", worked),
    }


def _read(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    table = pyarrow.parquet.ParquetFile(path)
    for batch in table.iter_batches(columns=["question", "answer"]):
        for row in batch.to_pylist():
            yield to_row(row["question"], row["answer"])
