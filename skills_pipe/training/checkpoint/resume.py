"""Finding the checkpoint to go on from, proving it whole and of the same run, and restoring everything from it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint import rng, schedule, tensors
from skills_pipe.training.checkpoint.adapter import check_same_adapters
from skills_pipe.training.checkpoint.comparable import is_same_validation
from skills_pipe.training.checkpoint.layout import StepFolder, readable_manifest, step_folders
from skills_pipe.training.checkpoint.ranks import on_all, rank, world_size
from skills_pipe.training.checkpoint.retention import names
from skills_pipe.training.checkpoint.state import DataPosition, ResumePoint, RunDescription, Trainee, TrainingInfo


@dataclass(frozen=True, kw_only=True)
class Found:
    """The checkpoint that a run goes on from.

    Attributes:
        path: its folder.
        manifest: what it consists of.
        unfinished: later or earlier steps that have no valid manifest and were passed over.
    """

    path: Path
    manifest: Manifest
    unfinished: tuple[int, ...] = ()


def latest_whole(folder: Path) -> Found | None:
    """The checkpoint with the highest step whose save was finished; None where there is none."""
    found, unfinished = None, []
    for step, path in step_folders(folder).items():
        manifest = readable_manifest(path)
        if manifest is None:
            unfinished.append(step)
        else:
            found = (path, manifest)
    if found is None:
        return None
    return Found(path=found[0], manifest=found[1], unfinished=tuple(unfinished))


def restore(found: Found, *, run: RunDescription, trainee: Trainee, accept_changes: bool) -> ResumePoint:
    """Bring ``trainee`` and the random numbers of this rank into the state of a checkpoint; on every rank.

    The configuration is what counts: an optimizer or a schedule that it describes otherwise than the checkpoint's does
    keeps its own settings. The optimizer then takes over its moments, the schedule the number of its steps.

    Args:
        found: from :func:`latest_whole`.
        run: the run that goes on.
        trainee: fresh objects of the same model and optimizer, on any number of ranks.
        accept_changes: go on although the model or the data are others than those of the checkpoint.

    Raises:
        CheckpointError: files are damaged, or the checkpoint belongs to another model or data set, or was trained
            with global batches of another size.
    """
    check_files(found.path, found.manifest)
    step = StepFolder(found.path)
    info = TrainingInfo.from_json(json.loads(step.info.read_text()))
    position = DataPosition(**json.loads(step.position.read_text()))
    warnings = []
    if found.unfinished:
        warnings.append(f"{names(found.unfinished)} passed over: the save was not finished")
    check_same_adapters(found.manifest, run.adapter, where=found.path)
    same_data = _check_same_run(found, position, run, accept_changes=accept_changes, warnings=warnings)
    before, now = _policy(step.config.read_text(encoding="utf-8")), _policy(run.config_yaml)
    if same_data:
        _check_batch_size(found.path.name, before, now)
    changed = [key for key in ("optimizer", "scheduler") if before.get(key) != now.get(key)]
    saved = torch.load(step.scheduler, weights_only=True) if step.scheduler.is_file() else None
    schedule.move_to_step(trainee, saved, info)
    other_schedule = None if changed else schedule.other_schedule(trainee, saved, info)
    rate = _configured_rate(before)
    other_rate = schedule.other_rate(trainee, saved, info, changed=changed, constant=rate) if changed else None
    if run.total_steps is None or info.total_steps < run.total_steps:  # else there is no step of which this holds
        warnings += [sentence for sentence in (other_schedule, other_rate) if sentence]
    keep_settings = bool(changed or other_schedule)

    tensors.load_model_state(trainee.model, step.weights)
    memory = _has_memory(trainee.optimizer)
    if step.optimizer.is_dir() and (memory or not keep_settings):
        with _fitting(before, now, since=found.path.name):
            tensors.load_optimizer_state(trainee, step.optimizer, keep_settings=keep_settings)
    elif memory:
        warnings.append(f"{found.path.name} has no optimizer state: the optimizer starts fresh")
    _restore_average(step, trainee, warnings)
    schedule.restore(trainee, None if keep_settings else saved)
    _restore_rng(step, found.manifest, run, info, warnings)
    same_validation = is_same_validation(found.manifest, run.validation_fingerprint)
    if not same_validation:
        warnings.append(
            f"the validation data changed since {found.path.name}: losses on them before do not count for the best"
        )
    return ResumePoint(
        info=info,
        position=position if same_data else None,
        same_validation=same_validation,
        warnings=tuple(warnings),
    )


def check_files(path: Path, manifest: Manifest) -> None:
    """Compare size and hash of every file of a checkpoint with its manifest, the files shared out over the ranks.

    Raises:
        CheckpointError: all damaged files by name.
    """
    ordered = sorted(manifest.files, key=lambda name: manifest.files[name].size)
    mine = {name: manifest.files[name] for name in ordered[rank() :: world_size()]}
    part = Manifest(kind=manifest.kind, files=mine)
    damaged = sorted(line for lines in on_all(lambda: manifests.damage(path, part)) for line in lines)
    if damaged:
        raise CheckpointError(
            f"checkpoint {path.name} is damaged: {'; '.join(damaged)}",
            where=str(path),
            fix=f"restore these files, or remove {path} to go on from the checkpoint before it",
        )


def _check_same_run(
    found: Found, position: DataPosition, run: RunDescription, *, accept_changes: bool, warnings: list[str]
) -> bool:
    """Whether the data position of the checkpoint still means the same."""
    changed = []
    if found.manifest.facts.get("model") != run.model_fingerprint:
        changed.append("the base model")
    data_changed = []
    if position.fingerprint != run.data_fingerprint:
        data_changed.append("the training data")
    if position.seed != run.seed:
        data_changed.append(f"the seed of their order ({position.seed} then, {run.seed} now)")
    changed += data_changed
    if changed and not accept_changes:
        raise CheckpointError(
            f"{' and '.join(changed)} changed since {found.path.name} was saved",
            where=str(found.path),
            fix="undo the change, choose another checkpointing.checkpoint_dir, "
            "or set checkpointing.on_change=continue to go on with the weights of the checkpoint",
        )
    if changed:
        warnings.append(f"{' and '.join(changed)} changed since {found.path.name}: going on as told")
    if data_changed:
        warnings.append("the data start from their beginning")
    return not data_changed


def _policy(config_yaml: str) -> Mapping[str, Any]:
    return (yaml.safe_load(config_yaml) or {}).get("policy", {})


def _configured_rate(policy: Mapping[str, Any]) -> Any:
    return ((policy.get("optimizer") or {}).get("kwargs") or {}).get("lr")


def _check_batch_size(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse another size of the global batches while the data go on.

    The position alone would allow it. But schedules, milestones, the end of the run and the periods of saving are
    counted in steps, and which samples an epoch leaves out at its end follows from the size: all would shift unseen.
    """
    key = "train_global_batch_size"
    if before.get(key) != now.get(key):
        raise CheckpointError(
            f"{name} was trained with global batches of {before.get(key)}",
            where=f"policy.{key}={now.get(key)}",
            fix="keep the size within a run, whose schedule and epochs are counted in such steps, or start another "
            "checkpointing.checkpoint_dir from its exported model",
        )


@contextlib.contextmanager
def _fitting(before: Mapping[str, Any], now: Mapping[str, Any], *, since: str) -> Iterator[None]:
    """Where another optimizer does not find what it keeps, its name says more than the names of tensors."""
    try:
        yield
    except CheckpointError as error:
        (then, had), (chosen, has) = (_named(policy.get("optimizer") or {}) for policy in (before, now))
        told = ", ".join(f"{key}={has.get(key)}" for key in sorted(had.keys() | has) if had.get(key) != has.get(key))
        if then == chosen and not told:
            raise
        raise CheckpointError(
            f"{chosen} keeps other states than {then}, which trained up to {since}"
            if then != chosen
            else f"{chosen} keeps other states with {told} than it did up to {since}",
            where=f"policy.optimizer.name={chosen}" if then != chosen else "policy.optimizer.kwargs",
            fix="keep the optimizer within a run, or start another run from its exported model",
        ) from error


def _named(section: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    return section.get("name"), section.get("kwargs") or {}


def _has_memory(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its steps depend on those before: plain SGD has nothing to keep, and nothing to miss."""
    if not isinstance(optimizer, torch.optim.SGD):
        return True
    return any(group["momentum"] for group in optimizer.param_groups)


def _restore_average(step: StepFolder, trainee: Trainee, warnings: list[str]) -> None:
    if trainee.average is None:
        if step.average.is_dir():
            warnings.append(f"{step.path.name} has an average of the weights, which ends here: sft.ema_decay is null")
        return
    if step.average.is_dir():
        tensors.read(trainee.average.state(), step.average)
        return
    trainee.average.restart()
    warnings.append(f"{step.path.name} has no average of the weights: it starts from the weights of this step")


def _restore_rng(
    step: StepFolder, manifest: Manifest, run: RunDescription, info: TrainingInfo, warnings: list[str]
) -> None:
    before = manifest.facts["world_size"]
    if before == world_size():
        rng.load(step.rng(rank()))
        return
    # Each rank its own stream, and another one than the run's beginning had.
    rng.reseed(run.seed + info.total_steps, rank=rank())
    warnings.append(
        f"saved by {before} ranks, now {world_size()}: weights, optimizer and data position are the same, "
        f"random numbers start anew from seed + step"
    )
