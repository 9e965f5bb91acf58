"""Data of the arithmetic benchmark: generated, nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.errors import OptionError
from skills_pipe.evaluation.benchmarks.arithmetic.problems import generate
from skills_pipe.evaluation.benchmarks.spec import SplitData


@dataclass(frozen=True, kw_only=True)
class Options:
    """How many problems, and which: another seed gives other problems of the same split."""

    test_count: int = 500
    train_count: int = 5000
    seed: int = 0


def load_split(split: str, options: Options) -> SplitData:
    """The problems of a split, ``train`` or ``test``."""
    if split == "test":
        return SplitData(rows=generate("test", options.test_count, options.seed))
    if split == "train":
        return SplitData(rows=generate("train", options.train_count, options.seed))
    raise OptionError(f"arithmetic has no split {split!r}", fix="choose train or test")
