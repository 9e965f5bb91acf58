"""Whether an exported model is whole, before it is given away."""

from __future__ import annotations

from pathlib import Path

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.errors import CheckpointError


def check_whole(model: Path) -> Manifest:
    """Compare every file of a model with its manifest, which is returned.

    Raises:
        CheckpointError: it has none, or files are missing or changed.
    """
    manifest = manifests.read(model) if model.is_dir() else None
    if manifest is None:
        raise CheckpointError(f"no finished model lies in {model}", where=str(model), fix="export the checkpoint")
    damaged = manifests.damage(model, manifest)
    if damaged:
        raise CheckpointError("; ".join(damaged), where=str(model), fix="export the checkpoint again")
    return manifest
