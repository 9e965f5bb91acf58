"""The step loop: batch, train, maybe validate, log, maybe save, maybe stop."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.training.backends.base import StepResult, TrainingDiverged
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.config.schedule import is_save_step, is_validation_step
from skills_pipe.training.data.batches import RankBatch, split_batch
from skills_pipe.training.monitoring.forecast import COMPARED_STEP
from skills_pipe.training.progress import Progress
from skills_pipe.training.run import Run
from skills_pipe.training.signals import StopReason

_VALIDATION = "validation/"
_VALIDATION_LOSS = "validation/val_loss"
_VALIDATION_TIME = "timing/validation/total_validation_time"
_SAVE_BYTES_PER_SECOND = 0.2e9
"""Pessimistic guess of how fast a rank saves, until it has saved once."""


def train(run: Run, progress: Progress) -> Verdict:
    """Train until the work is complete or this job has to end; called on every rank.

    Args:
        run: what to train, and on what.
        progress: where the run stands, which goes on step by step.

    Raises:
        TrainingDiverged: the loss is no number any more; the last checkpoint is from before that.
    """
    if progress.step == 0 and run.config.sft.val_at_start:
        validated = _validate(run, 0)
        _count_validation(progress, validated)
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
        _count_validation(progress, validated)
        last = progress.step == run.total_steps or bool(progress.stopping.sentence)
        stop = StopReason.NONE if last else _poll(run, progress)
        _log(run, progress.step, values)
        _end_profile(run, progress.step)
        if progress.steps_here == COMPARED_STEP and run.metrics is not None:
            run.metrics.say(run.forecast.beside(progress.step_seconds[-1]))
        _log(run, progress.step, validated)
        _log_nodes(run, now=last or bool(stop))
        _tell_saved(run)
        if is_save_step(run.config.checkpointing, progress.step, run.total_steps) or last or stop:
            _save(run, progress, {"train:loss": result.loss, **_as_metrics(validated)}, wait=last or bool(stop))
        if stop:
            return _stopped(run, stop, progress.step)
    beyond = f", the checkpoint is of step {progress.step}" if progress.step > run.total_steps else ""
    reason = progress.stopping.sentence or f"all {run.total_steps} steps are done{beyond}"
    return Verdict(outcome=Outcome.COMPLETE, step=progress.step, reason=reason)


def _batch(run: Run, data_step: int) -> RankBatch:
    indices = run.sampler.batch(data_step)
    return split_batch(run.dataset, indices, run.batches, run.world.data_rank, run.world.data_size)


def _step(run: Run, batch: RankBatch, progress: Progress) -> StepResult:
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
    run: Run, batch: RankBatch, result: StepResult, progress: Progress, *, data_seconds: float
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
        **result.metrics,
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


def _count_validation(progress: Progress, validated: Mapping[str, float]) -> None:
    progress.count_validation(_as_metrics(validated), seconds=validated.get(_VALIDATION_TIME, 0.0))


def _as_metrics(validated: Mapping[str, float]) -> dict[str, float]:
    """Under the names by which checkpoints are ranked."""
    losses = {key: value for key, value in validated.items() if key.startswith(_VALIDATION)}
    return {f"val:{key.removeprefix(_VALIDATION)}": value for key, value in losses.items()}


def _poll(run: Run, progress: Progress) -> StopReason:
    longest = run.checkpoints.longest_save_seconds if run.checkpoints is not None else 0.0
    validation = _next_validation_seconds(run, progress)
    return run.stop.poll(
        steps=progress.steps_here,
        step_seconds=max(progress.step_seconds) + validation,
        save_seconds=longest or _guess_save_seconds(run),
    )


def _next_validation_seconds(run: Run, progress: Progress) -> float:
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


def _save(run: Run, progress: Progress, metrics: Mapping[str, float], *, wait: bool) -> None:
    if run.checkpoints is None:
        return
    began = time.monotonic()
    info, position = progress.info(run.sampler, metrics), progress.position(run.sampler, run.data_fingerprint)
    on_disk = run.checkpoints.save(run.backend.trainee, info, position, wait=wait)
    _log(run, progress.step, {"timing/train/checkpointing": time.monotonic() - began})
    _tell_of(run, run.checkpoints, on_disk)


def _tell_saved(run: Run) -> None:
    """Whether a checkpoint that is written in the background has come onto disk, or has failed."""
    if run.checkpoints is not None:
        _tell_of(run, run.checkpoints, run.checkpoints.poll(run.backend.trainee))


def _tell_of(run: Run, checkpoints: CheckpointManager, on_disk: Sequence[int]) -> None:
    if run.metrics is None:
        return
    for step in on_disk:
        run.metrics.saved(step)
    for notice in checkpoints.take_notices():
        run.metrics.say(notice)


def _stopped(run: Run, stop: StopReason, step: int) -> Verdict:
    if run.checkpoints is None:
        reason = f"{stop.sentence}, and nothing was saved: checkpointing is disabled"
        return Verdict(outcome=Outcome.FAILED, step=step, reason=reason)
    return Verdict(outcome=Outcome.CONTINUE, step=step, reason=f"{stop.sentence}: saved after step {step}")


def _log_nodes(run: Run, *, now: bool) -> None:
    if run.nodes is None:
        return
    measured = run.nodes.gather(now=now)
    if run.metrics is not None:
        run.metrics.log_nodes(measured)


def _log(run: Run, step: int, values: Mapping[str, float]) -> None:
    if run.metrics is not None and values:
        run.metrics.log(step, values)
