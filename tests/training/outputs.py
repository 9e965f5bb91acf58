"""What a training leaves in its folders, read back for comparison."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

from skills_pipe.artifacts.metrics import read_metrics
from skills_pipe.artifacts.verdict import Verdict


def state(output: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights and optimizer moments of a checkpoint, by name."""
    found = {}
    for part in ("weights", "optimizer"):
        reader = FileSystemReader(output / "checkpoints" / f"step_{step}" / "policy" / part)
        entries = reader.read_metadata().state_dict_metadata
        tensors = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype)
            for name, entry in entries.items()
            if isinstance(entry, TensorStorageMetadata)
        }
        dcp_load(tensors, storage_reader=reader, no_dist=True)
        found |= {f"{part}:{name}": value for name, value in tensors.items()}
    return found


def logged(output: Path, name: str) -> dict[int, float]:
    """A logged value by step."""
    lines = read_metrics(output / "training-logs" / "metrics.jsonl")
    return {line["step"]: line[name] for line in lines if name in line}


def assert_equal_bits(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Fail with the names of the tensors that differ in any bit."""
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def verdict(output: Path) -> Verdict | None:
    """How the job ended."""
    return Verdict.read(output / "checkpoints" / "verdict.json")


def saved_steps(output: Path) -> list[int]:
    """Steps of the checkpoints, ascending."""
    return sorted(int(path.name.removeprefix("step_")) for path in (output / "checkpoints").glob("step_*"))
