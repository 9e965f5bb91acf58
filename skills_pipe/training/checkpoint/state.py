"""What a checkpoint carries besides tensors: counters, the position in the data, and which run it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # seconds that the programs which only read checkpoints save
    import torch
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import PreTrainedTokenizerBase

    from skills_pipe.training.checkpoint.adapter import AdapterRecord
    from skills_pipe.training.checkpoint.jobs import TrainingJob
    from skills_pipe.training.optimizers.ema import WeightAverage


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """The live objects that a checkpoint saves and restores, the same on every rank.

    Attributes:
        model: the Hugging Face module itself, plain or sharded by ``fully_shard``; its parameter names are those of
            the exported model.
        optimizer: may have no state yet.
        scheduler: None for a constant learning rate.
        average: of the weights; None where none is kept.
    """

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler | None = None
    average: WeightAverage | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingInfo:
    """Counters after an optimizer step; ``training_info.json`` of a checkpoint.

    Attributes:
        total_steps: optimizer steps done since the start of the run: the N of ``step_N``.
        epoch: epochs finished, counting from 0.
        step: steps done within the epoch.
        consumed_samples: rows of the data set trained on so far, over all epochs; it and the epochs are counted anew
            where the user let the run go on with other data.
        total_valid_tokens: supervised tokens trained on so far.
        metrics: values known at this step by their prefixed names: ``val:val_loss``, ``train:loss``.
        watches: what looks after the run, by name, with what it remembers (:mod:`skills_pipe.training.watches`).
    """

    total_steps: int
    epoch: int
    step: int
    consumed_samples: int
    total_valid_tokens: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    watches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Flat value for the file: counters and metrics side by side, as NeMo-RL writes it."""
        watches = {"watches": dict(self.watches)} if self.watches else {}
        return {**self.metrics, **{name: getattr(self, name) for name in _COUNTERS}, **watches}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingInfo:
        """Read back what :meth:`to_json` gave; names with a colon are metrics, other unknown names are left out."""
        metrics = {name: float(number) for name, number in value.items() if ":" in name}
        counters = {name: int(value[name]) for name in _COUNTERS}
        return cls(**counters, metrics=metrics, watches=value.get("watches", {}))


_COUNTERS = ("total_steps", "epoch", "step", "consumed_samples", "total_valid_tokens")


@dataclass(frozen=True, kw_only=True)
class DataPosition:
    """Where the sampler stands; ``train_dataloader.json`` of a checkpoint.

    The position counts samples: it means the same with another number of ranks.

    Attributes:
        consumed_samples: rows handed out so far, over all epochs.
        seed: seed of the order of the rows.
        fingerprint: of the data set with everything that shapes its tokens.
    """

    consumed_samples: int
    seed: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class RunDescription:
    """What every checkpoint of a run holds unchanged, and by which a resumed run is known to be the same.

    Attributes:
        config_yaml: the resolved training configuration.
        model_fingerprint: see :func:`skills_pipe.training.checkpoint.fingerprint.model_fingerprint`.
        data_fingerprint: of the training data set, as in :class:`DataPosition`.
        validation_fingerprint: of what is validated on; None without validation.
        seed: from which a rank's random numbers restart when the saved ones do not fit.
        precision: ``policy.precision``, the dtype that an export is written in unless another is asked for.
        tokenizer: saved with every step, with the chat template that the training used.
        stop_token_ids: tokens that end an answer in the training data; an exported model stops at them too.
        adapter: what is trained instead of all weights; None: all weights.
        save_optimizer: without it checkpoints are smaller, and a resumed run starts with a fresh optimizer.
        kernels: what computes attention and the loss in this job.
        total_steps: after which the run ends; None: not known.
        jobs: that have trained the run so far, this one last.
    """

    config_yaml: str
    model_fingerprint: str
    data_fingerprint: str
    seed: int
    validation_fingerprint: str | None = None
    precision: str = "bfloat16"
    tokenizer: PreTrainedTokenizerBase | None = None
    stop_token_ids: tuple[int, ...] = ()
    adapter: AdapterRecord | None = None
    save_optimizer: bool = True
    kernels: Mapping[str, str] = field(default_factory=dict)
    total_steps: int | None = None
    jobs: tuple[TrainingJob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """What was restored from a checkpoint.

    Attributes:
        info: counters as they were saved.
        position: where the data goes on; None when the user let the run go on with another data set or order.
        same_validation: whether it was validated on the same data.
        warnings: sentences that the user should read once.
    """

    info: TrainingInfo
    position: DataPosition | None
    same_validation: bool = True
    warnings: tuple[str, ...] = ()
