"""The data sets that have names: what a configuration may leave out for each; and what else a path can be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from skills_pipe.errors import did_you_mean


@dataclass(frozen=True, kw_only=True)
class DatasetKind:
    """What is known of a data set by its name.

    Attributes:
        about: one line for the reference page.
        keys: values of its keys where nobody sets them; with a ``data_path`` none has to be given.
        validation_split: its own split for validation, where no other data is given for that.
        plain: whether its rows are messages, or an input and an output.
    """

    about: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    validation_split: str | None = None
    plain: bool = True


DATASETS: Final[Mapping[str, DatasetKind]] = {
    "ResponseDataset": DatasetKind(about="rows of input and output, or of messages"),
    "openai_format": DatasetKind(about="rows of messages with tools"),
    "alpaca": DatasetKind(
        about="rows of instruction, input (optional) and output, put into the text of Alpaca", plain=False
    ),
    "aligner_prompt_response": DatasetKind(
        about="rows whose keys prompt_template puts together; the last of them is the answer", plain=False
    ),
    "aligner_chat": DatasetKind(about="rows of system, conversations (from, value, label), mask and type", plain=False),
    "text": DatasetKind(about="texts, all of them trained, or lists of prompt, output, prompt, ...", plain=False),
    "OpenAssistant": DatasetKind(
        about="trees of messages, one conversation for each way through a tree",
        keys={"data_path": "OpenAssistant/oasst1", "split_validation_size": 0.05},
        plain=False,
    ),
    "squad": DatasetKind(
        about="rows of context, question and answers",
        keys={"data_path": "rajpurkar/squad"},
        validation_split="validation",
        plain=False,
    ),
    "OpenMathInstruct-2": DatasetKind(
        about="rows of problem and expected_answer; output_key=generated_solution for solutions",
        keys={
            "data_path": "nvidia/OpenMathInstruct-2",
            "split": "train_1M",
            "input_key": "problem",
            "output_key": "expected_answer",
            "split_validation_size": 0.05,
        },
    ),
    "tulu3_sft_mixture": DatasetKind(
        about="rows of messages", keys={"data_path": "allenai/tulu-3-sft-mixture", "split_validation_size": 0.05}
    ),
}
"""A name with a dot in it is none of these, but a class of the user's: ``package.module.Class``."""

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_OTHER_NAMES: Final = {
    "promptresponsedataset": "ResponseDataset",
    "promptresponse": "ResponseDataset",
    "openaiformatdataset": "openai_format",
    "oasst": "OpenAssistant",
}
"""By which NeMo-Skills and NeMo-RL call the same, without dashes and capitals."""


SUFFIXES: Final = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt", ".jsonl.gz", ".json.gz", ".csv.gz")
"""Of files of rows."""

UNNAMED: Final = "ResponseDataset"
"""What rows are where nothing says anything else."""

_FROM_THE_ID: Final = ("input_key", "output_key")
"""What the id of a data set on the hub says; which split and which part of it is trained is said by its name only."""


def canonical_name(name: str) -> str | None:
    """The name as :data:`DATASETS` has it; of a class, the name itself; None when there is no such data set."""
    if is_class(name):
        return name
    plain = _plain(name)
    return _OTHER_NAMES.get(plain) or next((known for known in DATASETS if _plain(known) == plain), None)


def is_class(name: str) -> bool:
    """Whether a name is the import path of a class."""
    return "." in name and all(part.isidentifier() for part in name.split("."))


def kind_of(name: str) -> DatasetKind:
    """What is known of a data set by its canonical name; of a class, nothing."""
    return DATASETS.get(name) or DatasetKind(about="", plain=False)


def named_by(path: str) -> tuple[str, Mapping[str, Any]] | None:
    """The data set that a path names, and the keys that this settles; None where the path is any other.

    ``squad`` is all that goes by this name; ``rajpurkar/squad``, its id on the hub, says what its rows look like.
    """
    name = canonical_name(path)
    if name is not None and "data_path" in kind_of(name).keys:
        return name, kind_of(name).keys
    found = next((name for name, kind in DATASETS.items() if kind.keys.get("data_path") == path), None)
    if found is None:
        return None
    return found, {key: value for key, value in kind_of(found).keys.items() if key in _FROM_THE_ID}


def is_data_file(path: str) -> bool:
    """Whether a path, or a pattern of paths, names files of rows."""
    return path.lower().endswith(SUFFIXES)


def is_id(path: str) -> bool:
    """Whether a path can be the id of a data set on the hub, ``organisation/name``."""
    return _HUB_ID.fullmatch(path) is not None and not is_data_file(path)


def has_plain_rows(name: str, path: str) -> bool:
    """Whether a file of a data set is JSON text whose rows are messages, or an input and an output."""
    return kind_of(name).plain and path.endswith((".jsonl", ".json"))


def advice_for(name: str) -> str:
    """What to write in place of a name that is unknown."""
    near = did_you_mean(name, DATASETS)
    return near or f"give one of {', '.join(DATASETS)}, or package.module.Class"


def _plain(name: str) -> str:
    return re.sub(r"[-_]", "", name).lower()
