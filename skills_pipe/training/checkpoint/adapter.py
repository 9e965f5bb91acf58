"""What a checkpoint of adapters says of them and of the base model, whose weights it does not hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.atomic import write_json
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.fingerprint import weights_fingerprint
from skills_pipe.training.config.adapters import AdapterSpec, leaves

ADAPTER_CONFIG = "adapter_config.json"
_FACT = "adapter"


@dataclass(frozen=True, kw_only=True)
class AdapterRecord:
    """Adapters of a run, in the manifest of every checkpoint.

    Attributes:
        dim, alpha, rank_stabilised, decomposed: as in :class:`skills_pipe.training.config.adapters.AdapterSpec`.
        dropout: probability in training.
        targets: the modules as peft means them: last names where all modules of such a name have an adapter, else full
            names.
        base: folder or hub id of the base model.
        base_commit: of a hub model, where it is known.
        base_weights: fingerprint of the weight files of a folder; None of a hub model.
        quantized: how the linear layers below were kept in training; None: in the precision of the run. Whatever merges
            the adapters reads the base model itself.
    """

    dim: int
    alpha: float
    rank_stabilised: bool
    decomposed: bool
    dropout: float
    targets: tuple[str, ...]
    base: str
    base_commit: str | None
    base_weights: str | None
    quantized: str | None = None

    @classmethod
    def of(
        cls,
        spec: AdapterSpec,
        modules: Iterable[str],
        linear: Iterable[str],
        *,
        base: BaseModel,
        quantized: str | None = None,
    ) -> AdapterRecord:
        """The record of a run that starts.

        Args:
            spec: of the adapters.
            modules: full names of the layers that have one.
            linear: full names of all linear layers.
            base: the model below them.
            quantized: how it is kept, where that is not the precision of the run.
        """
        return cls(
            dim=spec.dim,
            alpha=spec.alpha,
            rank_stabilised=spec.rank_stabilised,
            decomposed=spec.decomposed,
            dropout=spec.dropout,
            targets=_targets(tuple(modules), tuple(linear)),
            base=base.name,
            base_commit=base.commit,
            base_weights=weights_fingerprint(Path(base.name)) if Path(base.name).is_dir() else None,
            quantized=quantized,
        )

    @classmethod
    def read(cls, manifest: Manifest) -> AdapterRecord | None:
        """That of a checkpoint; None for one of all weights."""
        fact = manifest.facts.get(_FACT)
        return cls(**{**fact, "targets": tuple(fact["targets"])}) if fact else None

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest of a checkpoint gets."""
        return {_FACT: asdict(self)}

    @property
    def scale(self) -> float:
        """Factor on what the adapters add."""
        return AdapterSpec(dim=self.dim, alpha=self.alpha, rank_stabilised=self.rank_stabilised).scale

    def peft_config(self) -> dict[str, Any]:
        """``adapter_config.json`` as peft writes and reads it."""
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.base,
            "revision": self.base_commit,
            "r": self.dim,
            "lora_alpha": int(self.alpha) if self.alpha == int(self.alpha) else self.alpha,
            "lora_dropout": self.dropout,
            "target_modules": list(self.targets),
            "use_rslora": self.rank_stabilised,
            "use_dora": self.decomposed,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
        }

    def write(self, path: Path) -> None:
        """Write ``adapter_config.json``."""
        write_json(path, self.peft_config())


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """The model below adapters.

    Attributes:
        name: folder or hub id.
        commit: of a hub model, where it is known.
    """

    name: str
    commit: str | None = None


def check_same_adapters(manifest: Manifest, now: AdapterRecord | None, *, where: Path) -> None:
    """Refuse to go on from a checkpoint of other adapters: its numbers would mean something else.

    Raises:
        CheckpointError: names what differs.
    """
    before = AdapterRecord.read(manifest)
    if before is None and now is None:
        return
    if before is None or now is None:
        then, today = ("all weights", "adapters") if before is None else ("adapters", "all weights")
        what = f"{where.name} is of a training of {then}, and {today} are trained now"
    else:
        names = ("dim", "alpha", "rank_stabilised", "decomposed", "targets", "quantized")
        differing = [name for name in names if getattr(before, name) != getattr(now, name)]
        if not differing:
            return
        pairs = [
            f"{name} was {_shown(getattr(before, name))} and is {_shown(getattr(now, name))}" for name in differing
        ]
        what = f"the adapters changed since {where.name} was saved: {'; '.join(pairs)}"
    raise CheckpointError(
        what,
        where=str(where),
        fix="keep lora_cfg and quantization of policy.dtensor_cfg as they were, or choose another "
        "checkpointing.checkpoint_dir",
    )


def _targets(modules: tuple[str, ...], linear: tuple[str, ...]) -> tuple[str, ...]:
    names = leaves(modules)
    meant = [name for name in linear if name.rpartition(".")[2] in names]
    return tuple(sorted(names)) if set(meant) == set(modules) else modules


def _shown(value: Mapping[str, Any] | Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
