"""Runs a pipeline of processors from its first manifest to the sealed last one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from skills_pipe.artifacts.manifest import seal
from skills_pipe.errors import DataError
from skills_pipe.training.prepare.config import Pipeline
from skills_pipe.training.prepare.jsonl import read_manifest
from skills_pipe.training.prepare.processor import Batch, Workspace, batched, keep_copy, write_manifest
from skills_pipe.training.prepare.tally import Tally


def run(pipeline: Pipeline) -> list[Tally]:
    """Stream all entries through the processors, publish the output and seal it; the figures of each processor.

    Raises:
        DataError: a bad row, or no row is left at the end; what lay at the output before stays as it was.
    """
    output = Path(pipeline.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    workspace = Workspace(scratch=output.parent)
    batches: Iterable[Batch] = batched(read_manifest(Path(pipeline.source))) if pipeline.source else ()
    for number, processor in enumerate(pipeline.processors):
        batches = processor.stream(batches, workspace)
        is_last = number == len(pipeline.processors) - 1
        if processor.output_manifest_file is not None and not is_last:
            batches = keep_copy(Path(processor.output_manifest_file), batches)
    rows = write_manifest(output, _not_empty(batches, workspace.tallies))
    seal(output, kind="sft_data", facts={"rows": rows, "processors": [tally.facts() for tally in workspace.tallies]})
    return workspace.tallies


def _not_empty(batches: Iterable[Batch], tallies: list[Tally]) -> Iterable[Batch]:
    """The batches; an error at their end when there was none, since empty training data is never meant."""
    rows = 0
    for batch in batches:
        rows += len(batch)
        yield batch
    if rows == 0:
        drops = [(count, reason, tally.name) for tally in tallies for reason, count in tally.dropped.items()]
        most = max(drops, default=None)
        why = f"; most were dropped by {most[2]}: {most[1]} ({most[0]} rows)" if most else "; the input is empty"
        raise DataError(f"no row is left{why}", fix="look at the filters and at the keys of the input")
