"""The process of a training job: from its configuration to its verdict and its exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import rich
from transformers.utils.logging import disable_progress_bar

from skills_pipe.artifacts.names import ENV_VERDICT
from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.errors import UserError
from skills_pipe.training.carry_out import carry_out
from skills_pipe.training.checkpoint.best import better_than_last
from skills_pipe.training.config import TrainingConfig, load_config, typed_for_megatron
from skills_pipe.training.distributed import World, join
from skills_pipe.training.setup import build_run, load_parts
from skills_pipe.training.signals import SignalListener

_EXIT_CODES = {Outcome.COMPLETE: 0, Outcome.CONTINUE: 75, Outcome.FAILED: 1}


def train_as_configured(file: Path | None, overrides: Sequence[str], *, strict: bool) -> int:
    """Train as a configuration says; returns the exit status.

    Args:
        file: laid over the packaged defaults.
        overrides: of keys, laid over the file.
        strict: refuse unknown keys.
    """
    disable_progress_bar()
    # Schedules of transformers import it, and it tells of a kernel of the hub that nobody here asks for.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    wanted = os.environ.get(ENV_VERDICT)
    speak = os.environ.get("RANK", "0") == "0"
    if wanted and speak:
        # That of an earlier start of this job; should this one crash, there must be none.
        Path(wanted).unlink(missing_ok=True)
    listener = SignalListener()
    with listener.listening():
        try:
            config = load_config(file, overrides, strict=strict)
        except UserError as error:
            # Every rank reads the same files and finds the same: one of them speaks.
            return _refuse(error, Path(wanted) if wanted else None, speak=speak)
        # FSDP2, which lets weights travel, wants a group even of one rank.
        with join(group_of_one=config.policy.dtensor_cfg.cpu_offload) as world:
            return _run(config, world, listener, notes=typed_for_megatron(config, overrides))


def _run(config: TrainingConfig, world: World, listener: SignalListener, notes: Sequence[str]) -> int:
    path = _verdict_path(config)
    if world.first:
        path.unlink(missing_ok=True)
    try:
        verdict = _train(config, world, listener, notes)
    except UserError as error:
        return _refuse(error, path, speak=world.first)
    # The verdict speaks for all ranks, so it waits for all of them.
    world.barrier()
    if world.first:
        verdict.write(path)
        _say(f"{verdict.outcome.value}: {verdict.reason}")
    # A rank that ends with 75 makes torchrun stop the others: none may end before the verdict is on disk.
    world.barrier()
    if world.first and (hint := _hint(config, verdict)):
        _say(hint)
    return _EXIT_CODES[verdict.outcome]


def _train(config: TrainingConfig, world: World, listener: SignalListener, notes: Sequence[str]) -> Verdict:
    parts = load_parts(config, world)
    return carry_out(replace(build_run(config, parts, world, listener), notes=notes), parts)


def _hint(config: TrainingConfig, verdict: Verdict) -> str | None:
    """Who watches for the best may not want the last checkpoint, of which a model is made unless asked."""
    settings = config.checkpointing
    if verdict.outcome is not Outcome.COMPLETE or config.sft.early_stopping is None or not settings.enabled:
        return None
    return better_than_last(Path(settings.checkpoint_dir))


def _say(line: str) -> None:
    rich.get_console().print(line, highlight=False, soft_wrap=True)


def _verdict_path(config: TrainingConfig) -> Path:
    """Where the launcher wants the verdict, else among the checkpoints."""
    return Path(os.environ.get(ENV_VERDICT) or Path(config.checkpointing.checkpoint_dir, "verdict.json"))


def _refuse(error: UserError, path: Path | None, *, speak: bool) -> int:
    """End because of the user's mistake, which the next job would meet again."""
    if speak:
        print(error, file=sys.stderr)
        if path is not None:
            Verdict(outcome=Outcome.FAILED, step=0, reason=str(error)).write(path)
    return error.exit_code
