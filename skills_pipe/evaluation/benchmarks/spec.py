"""What a benchmark is: a folder here with ``benchmark.yaml`` and ``prepare.py``, found by its name."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from skills_pipe.errors import OptionError, did_you_mean

_ROOT = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class SplitData:
    """The rows of one split, and where they come from.

    Attributes:
        rows: dictionaries with at least the fields of the prompt and ``expected_answer``.
        facts: remembered in the manifest of the written file: repository, commit, ...
    """

    rows: Iterator[dict[str, Any]]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: name of its folder, of its data folder and of its results folder.
        description: one line for people.
        prompt_config: name of a prompt, see :mod:`skills_pipe.evaluation.prompts.template`.
        metric: name of the way to count, see :mod:`skills_pipe.evaluation.metrics.compute`.
        splits: the splits that ``prepare.py`` can make.
        default_split: the split to evaluate on when none is named.
        inference: defaults that differ from :class:`skills_pipe.evaluation.settings.Inference`.
    """

    name: str
    description: str
    prompt_config: str
    metric: str
    splits: tuple[str, ...]
    default_split: str
    inference: Mapping[str, Any] = field(default_factory=dict)

    def prepare_module(self) -> ModuleType:
        """The module with ``Options`` and ``load_split(split, options) -> SplitData``."""
        return importlib.import_module(f"{__package__}.{self.name}.prepare")


def benchmark_names() -> list[str]:
    """Names of all benchmarks, sorted."""
    return sorted(path.parent.name for path in _ROOT.glob("*/benchmark.yaml"))


def load_benchmark(name: str) -> Benchmark:
    """Read the description of a benchmark.

    Raises:
        OptionError: there is none of this name.
    """
    path = _ROOT / name / "benchmark.yaml"
    known = benchmark_names()
    if name not in known:
        raise OptionError(
            f"there is no benchmark {name!r}", fix=did_you_mean(name, known) or f"choose one of {', '.join(known)}"
        )
    return _parse(name, yaml.safe_load(path.read_text(encoding="utf-8")))


def _parse(name: str, content: dict[str, Any]) -> Benchmark:
    fields = {field.name for field in dataclasses.fields(Benchmark)} - {"name"}
    unknown = sorted(content.keys() - fields)
    if unknown:
        raise OptionError(
            f"unknown key {unknown[0]!r}", where=f"benchmark.yaml of {name}", fix=did_you_mean(unknown[0], fields)
        )
    return Benchmark(name=name, **(content | {"splits": tuple(content["splits"])}))
