"""How far a run is: what its steps count, and what a checkpoint keeps of that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from skills_pipe.training.checkpoint.state import DataPosition, ResumePoint, TrainingInfo
from skills_pipe.training.data.batches import RankBatch
from skills_pipe.training.data.sampler import BatchSampler
from skills_pipe.training.run import Run
from skills_pipe.training.watches.early_stopping import EarlyStopping
from skills_pipe.training.watches.guard import StepGuard

_REMEMBERED_STEPS = 10


@dataclass(kw_only=True)
class Progress:
    """Where a run stands; the loop takes it from step to step.

    Attributes:
        step: optimizer steps done since the start of the run.
        steps_here: those of them that this job did.
        data_step: batches of the training data handed out.
        targets: supervised tokens trained on since the start of the run.
        step_seconds: durations of the latest steps of this job.
        validation_seconds: longest validation of this job.
        guard: says which steps change the weights.
        stopping: says when training is over before its last step.
    """

    step: int = 0
    steps_here: int = 0
    data_step: int = 0
    targets: int = 0
    step_seconds: list[float] = field(default_factory=list)
    validation_seconds: float = 0.0
    guard: StepGuard
    stopping: EarlyStopping

    @classmethod
    def of(cls, run: Run) -> Progress:
        """Where the checkpoint is that the run goes on from, or at the start; the watches as they were then."""
        sft, watches = run.config.sft, run.resumed.info.watches if run.resumed is not None else {}
        guard = StepGuard.of(sft.loss_spikes, sft.max_nonfinite_steps, watches.get("guard"))
        # What was the best on other data is no measure for losses on these.
        seen = watches.get("early_stopping") if run.resumed is not None and run.resumed.same_validation else None
        stopping = EarlyStopping.of(sft.early_stopping, seen)
        if run.resumed is None:
            return cls(guard=guard, stopping=stopping)
        info, position = run.resumed.info, run.resumed.position
        return cls(
            step=info.total_steps,
            data_step=position.consumed_samples // run.sampler.batch_size if position is not None else 0,
            targets=info.total_valid_tokens,
            guard=guard,
            stopping=stopping,
        )

    def advance(self, batch: RankBatch, *, seconds: float) -> None:
        """Count a step that took ``seconds``."""
        self.step += 1
        self.steps_here += 1
        self.data_step += 1
        self.targets += batch.global_targets
        self.step_seconds = [*self.step_seconds, seconds][-_REMEMBERED_STEPS:]

    def count_validation(self, metrics: Mapping[str, float], *, seconds: float) -> None:
        """Remember how long a validation took, and whether it was better than those before."""
        self.validation_seconds = max(self.validation_seconds, seconds)
        self.stopping.observe(self.step, metrics)

    def info(self, sampler: BatchSampler, metrics: Mapping[str, float] | None = None) -> TrainingInfo:
        """The counters that a checkpoint keeps, with the metrics by which it is ranked."""
        epoch, step = divmod(self.data_step, sampler.steps_per_epoch)
        return TrainingInfo(
            total_steps=self.step,
            epoch=epoch,
            step=step,
            consumed_samples=self.data_step * sampler.batch_size,
            total_valid_tokens=self.targets,
            # A step without supervised tokens has no loss, and JSON no word for that.
            metrics={name: value for name, value in (metrics or {}).items() if math.isfinite(value)},
            watches=self._watches,
        )

    def position(self, sampler: BatchSampler, fingerprint: str) -> DataPosition:
        """Where in the data the next step begins; ``fingerprint`` says of which."""
        return DataPosition(
            consumed_samples=self.data_step * sampler.batch_size, seed=sampler.seed, fingerprint=fingerprint
        )

    def point(self, run: Run) -> ResumePoint:
        """That from which another run would go on as this one would."""
        return ResumePoint(info=self.info(run.sampler), position=self.position(run.sampler, run.data_fingerprint))

    @property
    def _watches(self) -> dict[str, dict[str, Any]]:
        kept = {"guard": self.guard.state()}
        return kept | ({"early_stopping": self.stopping.state()} if self.stopping.settings else {})
