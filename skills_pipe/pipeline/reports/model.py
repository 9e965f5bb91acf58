"""The model that a plan makes: where it is, for whoever has waited for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from skills_pipe.pipeline.plan import Plan

_MAKERS: Final = ("convert-final-ckpt", "average-ckpt", "unpack-archive")
"""Stages that end with the model; those that convert single steps for an average do not."""

_PACKER: Final = "pack-archive"
_LINEAGE: Final = "lineage.json"
_LOSS: Final = "val:val_loss"


@dataclass(frozen=True, kw_only=True)
class MadeModel:
    """The last model of a plan.

    Attributes:
        folder: with the model, as the cluster names it.
        archive: that it is packed into, None without.
    """

    folder: Path
    archive: Path | None = None

    @classmethod
    def of(cls, plan: Plan, locate: Callable[[str], Path]) -> MadeModel | None:
        """That of a plan, None where it makes none; ``locate``: path as jobs see it -> path on the cluster."""
        outputs = {stage.name: locate(stage.output) for stage in plan.stages if stage.output}
        folder = next((outputs[name] for name in _MAKERS if name in outputs), None)
        return cls(folder=folder, archive=outputs.get(_PACKER)) if folder is not None else None

    def to_come(self) -> str:
        """The line for a run that is queued."""
        archive = f", archive {self.archive}" if self.archive else ""
        return f"model, once it is made: {self.folder}{archive}"

    def made(self) -> str:
        """The line for a run that has ended well, with what the model says of itself where it lies on this machine."""
        told = [*self._origin(), *([f"archive {self.archive}"] if self.archive else [])]
        return f"model: {self.folder}" + (f" ({', '.join(told)})" if told else "")

    def _origin(self) -> Iterator[str]:
        try:
            lineage = json.loads((self.folder / _LINEAGE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return  # of an archive that somebody else has made, or on a machine that is not this one
        if "averaged_from" in lineage:
            yield f"average of {len(lineage['averaged_from'])} steps"
        if "step" in lineage:
            yield f"step {lineage['step']}"
        loss = lineage.get("metrics", {}).get(_LOSS)
        if loss is not None:
            yield f"validation loss {loss:.4f}"
