"""Processors of other packages, which read and write manifests on disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skills_pipe.errors import ConfigError
from skills_pipe.training.prepare.jsonl import read_manifest
from skills_pipe.training.prepare.processor import Batch, Processor, Workspace, batched, write_manifest
from skills_pipe.training.prepare.tally import Tally


@dataclass(frozen=True, kw_only=True)
class ExternalProcessor(Processor):
    """Runs any class with ``process()`` between two temporary manifests.

    Args:
        target: the class; it is called with ``arguments`` and the two names of manifests.
        arguments: its keyword arguments.
    """

    target: type
    arguments: dict[str, Any]
    _instance: Any = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(getattr(self.target, "process", None)):
            raise ConfigError(f"{self.target.__qualname__} has no process()", where="_target_")
        try:
            instance = self.target(input_manifest_file=None, output_manifest_file=None, **self.arguments)
        except TypeError as error:
            raise ConfigError(f"wrong keywords: {error}", where=self.target.__qualname__) from error
        object.__setattr__(self, "_instance", instance)

    def stream(self, batches: Iterable[Batch], workspace: Workspace) -> Iterator[Batch]:
        """Write the entries down, let the processor run, and read what it wrote."""
        return self._run(batches, workspace.tally(self.target.__name__), workspace.scratch)

    def _run(self, batches: Iterable[Batch], tally: Tally, scratch: Path) -> Iterator[Batch]:
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".tmp-") as folder:
            source, result = Path(folder, "input.jsonl"), Path(folder, "output.jsonl")
            read = write_manifest(source, batches)
            tally.read = read
            start = time.perf_counter()
            self._instance.input_manifest_file = str(source)
            self._instance.output_manifest_file = str(result)
            self._instance.process()
            tally.seconds = time.perf_counter() - start
            for batch in batched(read_manifest(result)):
                tally.kept += len(batch)
                yield batch
            tally.dropped["dropped"] = max(0, tally.read - tally.kept)

    def test(self) -> None:
        """Run the processor's own test, where it has one."""
        own_test = getattr(self._instance, "test", None)
        if callable(own_test):
            own_test()
