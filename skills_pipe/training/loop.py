"""The step loop: batch, train, maybe validate, log, maybe save, maybe stop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.training.answers import Answers
from skills_pipe.training.backends.base import Backend, StepResult, TrainingDiverged
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.checkpoint.state import DataPosition, ResumePoint, TrainingInfo
from skills_pipe.training.config import TrainingConfig
from skills_pipe.training.config.schedule import is_save_step, is_validation_step
from skills_pipe.training.data.batches import BatchSettings, RankBatch, split_batch
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.sampler import BatchSampler
from skills_pipe.training.distributed import World
from skills_pipe.training.forecast import COMPARED_STEP, Forecast
from skills_pipe.training.metrics import MetricsLogger
from skills_pipe.training.models.flops import ModelFlops
from skills_pipe.training.performance import Performance, peak_flops
from skills_pipe.training.profiler import StepProfiler
from skills_pipe.training.signals import StopReason, StopRequest
from skills_pipe.training.validation import Validation
from skills_pipe.training.watches.early_stopping import EarlyStopping
from skills_pipe.training.watches.guard import StepGuard

_VALIDATION = "validation/"
_VALIDATION_LOSS = "validation/val_loss"
_VALIDATION_TIME = "timing/validation/total_validation_time"
_SAVE_BYTES_PER_SECOND = 0.2e9
"""Pessimistic guess of how fast a rank saves, until it has saved once."""


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
        model = self.backend.trainee.model.config
        return Forecast.of(self.config, model, self.world.device, ranks=self.world.size)

    @property
    def data_fingerprint(self) -> str:
        """Of the samples that the position in the data counts, and of their order."""
        return self.sampler.fingerprint(self.batches.fingerprint(self.dataset))


def train(run: Run) -> Verdict:
    """Train until the work is complete or this job has to end; called on every rank.

    Raises:
        TrainingDiverged: the loss is no number any more; the last checkpoint is from before that.
    """
    progress = _Progress.of(run)
    if progress.step == 0 and run.config.sft.val_at_start:
        validated = _validate(run, 0)
        progress.count_validation(validated)
        _log(run, 0, validated)
    while progress.step < run.total_steps and not progress.stopping.sentence:
        if run.profiler is not None:
            run.profiler.before(progress.step + 1)
        began = time.monotonic()
        batch = _batch(run, progress.data_step)
        prepared = time.monotonic()
        result = _step(run, batch, progress)
        progress.advance(batch, seconds=time.monotonic() - began)
        values = _training_values(run, batch, result, progress, data_seconds=prepared - began)

        validated = _validate(run, progress.step) if _is_validation_step(run, progress.step) else {}
        progress.count_validation(validated)
        last = progress.step == run.total_steps or bool(progress.stopping.sentence)
        stop = StopReason.NONE if last else _poll(run, progress)
        _log(run, progress.step, values)
        _end_profile(run, progress.step)
        if progress.steps_here == COMPARED_STEP and run.metrics is not None:
            run.metrics.say(run.forecast.beside(progress.step_seconds[-1]))
        _log(run, progress.step, validated)
        _tell_saved(run)
        if is_save_step(run.config.checkpointing, progress.step, run.total_steps) or last or stop:
            _save(run, progress, {"train:loss": result.loss, **_as_metrics(validated)}, wait=last or bool(stop))
        if stop:
            return _stopped(run, stop, progress.step)
    beyond = f", the checkpoint is of step {progress.step}" if progress.step > run.total_steps else ""
    reason = progress.stopping.sentence or f"all {run.total_steps} steps are done{beyond}"
    return Verdict(outcome=Outcome.COMPLETE, step=progress.step, reason=reason)


@dataclass(kw_only=True)
class _Progress:
    """How far the run is.

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
    def of(cls, run: Run) -> _Progress:
        sft, watches = run.config.sft, run.resumed.info.watches if run.resumed is not None else {}
        guard = StepGuard.of(sft.loss_spikes, sft.max_nonfinite_steps, watches.get("guard"))
        stopping = EarlyStopping.of(sft.early_stopping, watches.get("early_stopping"))
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
        self.step_seconds = [*self.step_seconds[-9:], seconds]

    def count_validation(self, validated: Mapping[str, float]) -> None:
        """Remember how long a validation took, and whether it was better than those before."""
        self.validation_seconds = max(self.validation_seconds, validated.get(_VALIDATION_TIME, 0.0))
        self.stopping.observe(self.step, _as_metrics(validated))

    @property
    def watches(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint keeps of the watches that are on."""
        kept = {"guard": self.guard.state()}
        return kept | ({"early_stopping": self.stopping.state()} if self.stopping.settings else {})


def _batch(run: Run, data_step: int) -> RankBatch:
    indices = run.sampler.batch(data_step)
    return split_batch(run.dataset, indices, run.batches, run.world.data_rank, run.world.data_size)


def _step(run: Run, batch: RankBatch, progress: _Progress) -> StepResult:
    step = progress.step + 1
    try:
        result = run.backend.train_step(batch.microbatches, targets=batch.global_weight, judge=progress.guard.judge)
    except TrainingDiverged as error:
        raise TrainingDiverged(f"step {step}: {error}", step=progress.step) from error
    if result.passed_over is not None and run.metrics is not None:
        run.metrics.say(f"step {step} changes nothing: {result.passed_over}")
    return result


def _end_profile(run: Run, step: int) -> None:
    path = run.profiler.after(step) if run.profiler is not None else None
    if path is not None and run.metrics is not None:
        run.metrics.say(f"profile written: {path}")


def _training_values(
    run: Run, batch: RankBatch, result: StepResult, progress: _Progress, *, data_seconds: float
) -> dict[str, float]:
    seconds = progress.step_seconds[-1]
    return {
        "train/loss": result.loss,
        "train/grad_norm": result.grad_norm,
        "train/lr": result.lr,
        "train/global_valid_seqs": batch.global_documents,
        "train/global_valid_toks": batch.global_targets,
        "train/passed_over_steps": progress.guard.passed_over,
        "train/tokens": batch.global_tokens,
        "train/num_valid_samples": batch.global_documents,
        "train/num_unmasked_tokens": batch.global_targets,
        "train/tokens_per_second": batch.global_tokens / seconds,
        **run.performance.metrics(batch, seconds=seconds, busy=seconds - data_seconds),
        "timing/train/total_step_time": seconds,
        "timing/train/data_processing": data_seconds,
        "timing/train/policy_training": seconds - data_seconds,
    }


def _validate(run: Run, step: int) -> dict[str, float]:
    if run.validation is None:
        return {}
    began = time.monotonic()
    losses = run.validation.losses(run.backend, run.world)
    named = {f"{_VALIDATION}{name}/val_loss": loss for name, loss in losses.by_name.items()}
    answered = run.answers.ask(run.backend, step) if run.answers is not None else {}
    named |= {f"{_VALIDATION}{name}": value for name, value in answered.items()}
    return {_VALIDATION_LOSS: losses.overall, **named, _VALIDATION_TIME: time.monotonic() - began}


def _is_validation_step(run: Run, step: int) -> bool:
    return run.validation is not None and is_validation_step(run.config.sft, step, run.total_steps)


def _as_metrics(validated: Mapping[str, float]) -> dict[str, float]:
    """Under the names by which checkpoints are ranked."""
    losses = {key: value for key, value in validated.items() if key.startswith(_VALIDATION)}
    return {f"val:{key.removeprefix(_VALIDATION)}": value for key, value in losses.items()}


def _poll(run: Run, progress: _Progress) -> StopReason:
    longest = run.checkpoints.longest_save_seconds if run.checkpoints is not None else 0.0
    validation = _next_validation_seconds(run, progress)
    return run.stop.poll(
        steps=progress.steps_here,
        step_seconds=max(progress.step_seconds) + validation,
        save_seconds=longest or _guess_save_seconds(run),
    )


def _next_validation_seconds(run: Run, progress: _Progress) -> float:
    """Of the validation after the next step; before the first, that of training on as many tokens."""
    if run.validation is None or not _is_validation_step(run, progress.step + 1):
        return 0.0
    tokens_per_step = int(run.dataset.lengths.sum()) / run.batches.units(run.dataset) * run.sampler.batch_size
    tokens = run.validation.tokens + (run.answers.tokens if run.answers is not None else 0)
    guess = max(progress.step_seconds) * tokens / tokens_per_step
    return progress.validation_seconds or guess


def _guess_save_seconds(run: Run) -> float:
    """What is trained and two moments of it in fp32, shared out over the ranks."""
    parameters = run.backend.trainee.model.parameters()
    numbers = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return 12 * numbers / run.world.size / _SAVE_BYTES_PER_SECOND


def _save(run: Run, progress: _Progress, metrics: Mapping[str, float], *, wait: bool) -> None:
    if run.checkpoints is None:
        return
    began = time.monotonic()
    epoch, step = divmod(progress.data_step, run.sampler.steps_per_epoch)
    consumed = progress.data_step * run.sampler.batch_size
    info = TrainingInfo(
        total_steps=progress.step,
        epoch=epoch,
        step=step,
        consumed_samples=consumed,
        total_valid_tokens=progress.targets,
        # A step without supervised tokens has no loss, and JSON no word for that.
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        watches=progress.watches,
    )
    position = DataPosition(consumed_samples=consumed, seed=run.config.sft.seed, fingerprint=run.data_fingerprint)
    on_disk = run.checkpoints.save(run.backend.trainee, info, position, wait=wait)
    _log(run, progress.step, {"timing/train/checkpointing": time.monotonic() - began})
    _tell_steps(run, on_disk)


def _tell_saved(run: Run) -> None:
    """Whether a checkpoint that is written in the background has come onto disk, or has failed."""
    if run.checkpoints is not None:
        _tell_steps(run, run.checkpoints.poll(run.backend.trainee))


def _tell_steps(run: Run, on_disk: Sequence[int]) -> None:
    for step in on_disk:
        if run.metrics is not None:
            run.metrics.saved(step)


def _stopped(run: Run, stop: StopReason, step: int) -> Verdict:
    if run.checkpoints is None:
        reason = f"{stop.sentence}, and nothing was saved: checkpointing is disabled"
        return Verdict(outcome=Outcome.FAILED, step=step, reason=reason)
    return Verdict(outcome=Outcome.CONTINUE, step=step, reason=f"{stop.sentence}: saved after step {step}")


def _log(run: Run, step: int, values: Mapping[str, float]) -> None:
    if run.metrics is not None and values:
        run.metrics.log(step, values)
