"""Writing one checkpoint so that it appears whole or not at all, from all ranks together."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from skills_pipe.artifacts.atomic import recover_directory, sync_directory
from skills_pipe.artifacts.manifest import FileRecord, seal
from skills_pipe.artifacts.names import MANIFEST, step_directory
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint import owner as owners
from skills_pipe.training.checkpoint import rng, tensors
from skills_pipe.training.checkpoint.comparable import VALIDATION
from skills_pipe.training.checkpoint.failures import disk_failures, is_lack_of_memory
from skills_pipe.training.checkpoint.jobs import job_facts
from skills_pipe.training.checkpoint.layout import StepFolder
from skills_pipe.training.checkpoint.owner import Owner
from skills_pipe.training.checkpoint.ranks import on_all, on_first, rank, world_size
from skills_pipe.training.checkpoint.snapshot import AVERAGE, OPTIMIZER, WEIGHTS, Snapshot
from skills_pipe.training.checkpoint.state import RunDescription, TrainingInfo

_HASHING_THREADS = 4


def write_step(folder: Path, *, owner: Owner, run: RunDescription, snapshot: Snapshot) -> Path:
    """Write ``folder/step_N`` for ``N = snapshot.info.total_steps`` and return it; to be called on every rank.

    All ranks write into one temporary folder. Each hashes what it wrote; then rank 0 writes the manifest and renames.
    Whatever stops this before the rename leaves the older checkpoints as they were.

    Raises:
        CheckpointError: a file could not be written, or another process owns ``folder`` now.
    """
    number = snapshot.info.total_steps
    target = folder / step_directory(number)
    temporary = folder / f".tmp-{target.name}.{on_first(lambda: owner.label)}"
    step = StepFolder(temporary)
    try:
        on_first(lambda: _begin(temporary, folder, owner))
        for name, state in snapshot.states.items():
            tensors.write(state, _folder_of(name, step))
        on_all(lambda: _write_rest(step, run, snapshot))
        records = on_all(lambda: _hash_own_files(temporary))
        files = {name: record for part in records for name, record in part.items()}
        on_first(lambda: _publish(temporary, target, owner, files=files, facts=_facts(run, snapshot.info)))
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint of step {number} could not be written: {error.strerror or error}",
            where=str(folder),
            fix="make room or check the quota of the file system; earlier checkpoints are untouched",
        ) from error
    finally:
        # Removed by its own rank 0 alone; after the rename nothing is left to remove.
        if rank() == 0:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def remove_stale(folder: Path) -> list[Path]:
    """Remove what killed writers left in ``folder`` and finish a replacement cut short; only for its new owner."""
    removed = []
    for entry in folder.glob(".tmp-step_*"):
        shutil.rmtree(entry, ignore_errors=True)
        removed.append(entry)
    for entry in folder.glob("old_step_*"):
        recover_directory(entry.with_name(entry.name.removeprefix("old_")))
    return removed


def _begin(temporary: Path, folder: Path, owner: Owner) -> None:
    owners.verify(folder, owner)
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / "rng").mkdir(parents=True)
    (temporary / "policy").mkdir()


def _folder_of(name: str, step: StepFolder) -> Path:
    return {WEIGHTS: step.weights, OPTIMIZER: step.optimizer, AVERAGE: step.average}[name]


def _write_rest(step: StepFolder, run: RunDescription, snapshot: Snapshot) -> None:
    with disk_failures():
        rng.save(snapshot.generators, step.rng(rank()))
        if rank() == 0:
            _write_settings(step, run, snapshot)


def _write_settings(step: StepFolder, run: RunDescription, snapshot: Snapshot) -> None:
    step.config.write_text(run.config_yaml, encoding="utf-8")
    step.info.write_text(json.dumps(snapshot.info.to_json(), indent=2), encoding="utf-8")
    step.position.write_text(json.dumps(asdict(snapshot.position), indent=2), encoding="utf-8")
    if snapshot.scheduler is not None:
        torch.save(dict(snapshot.scheduler), step.scheduler)
    if run.tokenizer is not None:
        run.tokenizer.save_pretrained(step.tokenizer)
    if run.adapter is not None:
        run.adapter.write(step.adapter_config)
    _write_model_settings(step.model, snapshot.model, run)


def _write_model_settings(folder: Path, model: torch.nn.Module, run: RunDescription) -> None:
    folder.mkdir()
    config = copy.deepcopy(model.config)
    # The class that a reader must build; fully_shard puts a class of its own in front of it.
    config.architectures = [next(cls.__name__ for cls in type(model).__mro__ if not issubclass(cls, FSDPModule))]
    config.save_pretrained(folder)
    generation = getattr(model, "generation_config", None)
    if generation is None:
        return
    generation = copy.deepcopy(generation)
    if run.stop_token_ids:
        before = generation.eos_token_id
        known = [before] if isinstance(before, int) else list(before or [])
        generation.eos_token_id = [*known, *(token for token in run.stop_token_ids if token not in known)]
        # Else a reader may make them again from the model's configuration, which does not know these tokens.
        generation._from_model_config = False
    # Not save_pretrained, which refuses settings that many published models have.
    generation.to_json_file(folder / "generation_config.json")


def _hash_own_files(temporary: Path) -> dict[str, FileRecord]:
    """Flush and hash what this rank wrote, so that no rank reads another node's files."""
    paths = list(_own_files(temporary))

    def record(path: Path) -> FileRecord:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        return FileRecord.of(path)

    try:
        with ThreadPoolExecutor(_HASHING_THREADS) as pool:
            records = list(pool.map(record, paths))
    except RuntimeError as error:
        if not is_lack_of_memory(error):
            raise
        # A host without memory for more threads.
        records = [record(path) for path in paths]
    return {str(path.relative_to(temporary)): found for path, found in zip(paths, records, strict=True)}


def _own_files(temporary: Path) -> Iterator[Path]:
    mine = (f"__{rank()}_", f"rank_{rank()}.pt")
    for parent, _, names in os.walk(temporary):
        for name in sorted(names):
            belongs_to_a_rank = name.startswith(("__", "rank_"))
            if name.startswith(mine) if belongs_to_a_rank else rank() == 0:
                yield Path(parent, name)


def _facts(run: RunDescription, info: TrainingInfo) -> dict[str, Any]:
    return {
        "step": info.total_steps,
        "metrics": dict(info.metrics),
        "model": run.model_fingerprint,
        "data": run.data_fingerprint,
        **({VALIDATION: run.validation_fingerprint} if run.validation_fingerprint is not None else {}),
        "precision": run.precision,
        "world_size": world_size(),
        **job_facts(run.jobs),
        **(run.adapter.facts if run.adapter is not None else {}),
    }


def _publish(
    temporary: Path, target: Path, owner: Owner, *, files: Mapping[str, FileRecord], facts: Mapping[str, Any]
) -> None:
    seal(temporary, kind="checkpoint", facts=facts, hashed=files)
    for parent, _, _ in os.walk(temporary):
        sync_directory(Path(parent))
    owners.verify(target.parent, owner)
    # What the folder as a whole was sealed as is no longer what it will hold.
    (target.parent / MANIFEST).unlink(missing_ok=True)
    # A folder of that name is a damaged or an older attempt; it is set aside until the new one stands.
    aside = target.with_name(f"old_{target.name}")
    if target.exists():
        os.rename(target, aside)
    os.rename(temporary, target)
    sync_directory(target.parent)
    shutil.rmtree(aside, ignore_errors=True)
