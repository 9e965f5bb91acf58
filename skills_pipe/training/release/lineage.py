"""Where the weights of a model come from: ``lineage.json`` of every export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.hf_folder import LINEAGE
from skills_pipe.training.checkpoint.jobs import code_hash, jobs_of
from skills_pipe.training.checkpoint.layout import StepFolder
from skills_pipe.training.config.without_secrets import without_secrets


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """What one exported checkpoint was made of.

    Attributes:
        step: optimizer steps.
        metrics: at that step, by their prefixed names: ``val:val_loss``.
        counters: epochs, documents and tokens trained on, as ``training_info.json`` has them.
        dtype: of the exported weights.
        ema: whether they are the moving average.
        base_model: fingerprint of the model that was trained.
        data: fingerprint of the training data and their order.
        config: sha256 of the training configuration as the checkpoint holds it.
        training_config: that configuration; of environment variables the names only, addresses without passwords. It
            is that of the last steps: what a job changed, and from which step on, stands with the job.
        checkpoint: hash of the contents of the checkpoint.
        jobs: that trained it, as :class:`skills_pipe.training.checkpoint.jobs.TrainingJob` has them.
        code: hash of the sources that exported it; each job has that of those that trained it.
        trained_by, exported_by: identities of the stages; None of what was started by hand.
    """

    step: int
    metrics: Mapping[str, float]
    counters: Mapping[str, int]
    dtype: str
    ema: bool
    base_model: str
    data: str
    config: str
    training_config: Mapping[str, Any]
    checkpoint: str
    jobs: tuple[Mapping[str, Any], ...]
    code: str
    trained_by: str | None
    exported_by: str | None

    @classmethod
    def of(cls, step: StepFolder, manifest: Manifest, *, dtype: str, ema: bool) -> Lineage:
        """The lineage of what is made of a checkpoint now."""
        identity = Identity.from_environment()
        info = json.loads(step.info.read_text())
        return cls(
            step=manifest.facts["step"],
            metrics=manifest.facts["metrics"],
            counters={name: info[name] for name in ("epoch", "consumed_samples", "total_valid_tokens")},
            dtype=dtype,
            ema=ema,
            base_model=manifest.facts["model"],
            data=manifest.facts["data"],
            config=hashlib.sha256(step.config.read_bytes()).hexdigest(),
            training_config=without_secrets(yaml.safe_load(step.config.read_text(encoding="utf-8")) or {}),
            checkpoint=manifest.digest,
            jobs=tuple(asdict(job) for job in jobs_of(manifest)),
            code=code_hash(),
            trained_by=manifest.identity.digest if manifest.identity else None,
            exported_by=identity.digest if identity else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain value for the file."""
        return {**asdict(self), "jobs": list(self.jobs)}

    @classmethod
    def read(cls, model: Path) -> Lineage:
        """The lineage of an exported model.

        Raises:
            CheckpointError: it has none, is an average, or was exported by an older version.
        """
        value = read_lineage(model)
        missing = [name for name in cls.__dataclass_fields__ if name not in value]
        if missing:
            what = "is an average of several checkpoints" if "averaged_from" in value else "does not say enough"
            raise CheckpointError(
                f"{model} {what}: its {LINEAGE} has no {', '.join(missing[:3])}",
                where=str(model),
                fix="name a model that one checkpoint was exported to, by this version",
            )
        return cls(**{name: value[name] for name in cls.__dataclass_fields__} | {"jobs": tuple(value["jobs"])})


def read_lineage(model: Path) -> Mapping[str, Any]:
    """``lineage.json`` of a model, of one checkpoint or of an average.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    path = model / LINEAGE
    try:
        value: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{model} does not say where it comes from", where=str(path), fix="name a model that was exported here"
        ) from error
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error})", fix="export the model again") from error
    return value
