"""What a training job consists of, on each of its ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from skills_pipe.training.answers import Answers
from skills_pipe.training.backends.base import Backend
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.checkpoint.state import ResumePoint
from skills_pipe.training.config import TrainingConfig
from skills_pipe.training.data.batches import BatchSettings, RankBatch, split_batch
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.sampler import BatchSampler
from skills_pipe.training.distributed import World
from skills_pipe.training.models.flops import ModelFlops
from skills_pipe.training.monitoring.forecast import Forecast
from skills_pipe.training.monitoring.metrics import MetricsLogger
from skills_pipe.training.monitoring.nodes import NodeMonitor
from skills_pipe.training.monitoring.performance import Performance, peak_flops
from skills_pipe.training.monitoring.profiler import StepProfiler
from skills_pipe.training.optimizers.rehearsal import Rehearsal, rehearse
from skills_pipe.training.signals import StopRequest
from skills_pipe.training.validation import Validation


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that a training job needs, the same on every rank but for the logger.

    Attributes:
        config: the resolved configuration.
        world: the processes that train together.
        backend: the model with its optimizer.
        dataset: training documents.
        sampler: the order in which they are trained on.
        batches: how documents become microbatches.
        total_steps: at which the work is complete.
        stop: asked after each step whether this job should end.
        validation: None without held-out data.
        answers: what is asked in each validation; None when nothing is.
        checkpoints: None when checkpointing is disabled.
        metrics: on rank 0 only.
        resumed: the checkpoint that the job goes on from, None at the start of a run.
        profiler: None when no step is profiled.
        nodes: None when nobody asks what they use.
        notes: what is to be said of the keys beside what the configuration tells.
    """

    config: TrainingConfig
    world: World
    backend: Backend
    dataset: SftDataset
    sampler: BatchSampler
    batches: BatchSettings
    total_steps: int
    stop: StopRequest
    validation: Validation | None = None
    answers: Answers | None = None
    checkpoints: CheckpointManager | None = None
    metrics: MetricsLogger | None = None
    resumed: ResumePoint | None = None
    profiler: StepProfiler | None = None
    nodes: NodeMonitor | None = None
    notes: Sequence[str] = ()

    @cached_property
    def performance(self) -> Performance:
        """How fast this rank's device works on this model."""
        return Performance(
            flops=ModelFlops.of(self.backend.trainee.model),
            ranks=self.world.size,
            device=self.world.device,
            peak=peak_flops(self.world.device, self.config.policy.precision),
        )

    @cached_property
    def forecast(self) -> Forecast:
        """What a rank will need."""
        model, batch = self.backend.trainee.model.config, self.first_batch
        operations = self.performance.flops.of_step(batch.lengths, batch.global_targets)
        return Forecast.of(self.config, model, self.world.device, ranks=self.world.size, operations=operations)

    @cached_property
    def rehearsal(self) -> Rehearsal | None:
        """The learning rates of the run; None without an optimizer."""
        policy = self.config.policy
        if policy.optimizer is None:
            return None
        return rehearse(policy.optimizer, policy.scheduler, total_steps=self.total_steps)

    @property
    def first_batch(self) -> RankBatch:
        """The first global batch of the data, as one rank alone would get it."""
        return split_batch(self.dataset, self.sampler.batch(0), self.batches, 0, 1)

    @property
    def data_fingerprint(self) -> str:
        """Of the samples that the position in the data counts, and of their order."""
        return self.sampler.fingerprint(self.batches.fingerprint(self.dataset))
