"""Supervised fine-tuning of one model: the program of a training job.

::

    python -m skills_pipe.training.sft --config sft.yaml policy.model_name=/models/base ++sft.max_num_steps=100
    torchrun --standalone --nproc-per-node=8 -m skills_pipe.training.sft ...

Without ``--config`` the packaged defaults are used; ``--strict=false`` ignores unknown keys. It ends with 0 when the
work is complete, 75 when the next job should go on, 2 for a mistake of the user's and 1 otherwise; the verdict file
says the same to programs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import rich
from transformers.utils.logging import disable_progress_bar

from skills_pipe.artifacts.names import ENV_VERDICT, METRICS
from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.errors import UserError
from skills_pipe.training import curves
from skills_pipe.training.backends.base import TrainingDiverged
from skills_pipe.training.config import TrainingConfig, load_config
from skills_pipe.training.distributed import World, end, join
from skills_pipe.training.loop import train
from skills_pipe.training.progress import Progress
from skills_pipe.training.run import Run
from skills_pipe.training.setup import Parts, build_run, load_parts
from skills_pipe.training.signals import SignalListener
from skills_pipe.training.summary import show

_EXIT_CODES = {Outcome.COMPLETE: 0, Outcome.CONTINUE: 75, Outcome.FAILED: 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the arguments say; returns the exit status."""
    arguments, overrides = _parse(sys.argv[1:] if argv is None else argv)
    disable_progress_bar()
    wanted = os.environ.get(ENV_VERDICT)
    speak = os.environ.get("RANK", "0") == "0"
    if wanted and speak:
        # That of an earlier start of this job; should this one crash, there must be none.
        Path(wanted).unlink(missing_ok=True)
    listener = SignalListener()
    with listener.listening():
        try:
            config = load_config(arguments.config, overrides, strict=arguments.strict)
        except UserError as error:
            # Every rank reads the same files and finds the same: one of them speaks.
            return _refuse(error, Path(wanted) if wanted else None, speak=speak)
        with join() as world:
            return _run(config, world, listener)


def _run(config: TrainingConfig, world: World, listener: SignalListener) -> int:
    path = _verdict_path(config)
    if world.first:
        path.unlink(missing_ok=True)
    try:
        verdict = _train(config, world, listener)
    except UserError as error:
        return _refuse(error, path, speak=world.first)
    # The verdict speaks for all ranks, so it waits for all of them.
    world.barrier()
    if world.first:
        verdict.write(path)
        rich.get_console().print(f"{verdict.outcome.value}: {verdict.reason}", highlight=False, soft_wrap=True)
    # A rank that ends with 75 makes torchrun stop the others: none may end before the verdict is on disk.
    world.barrier()
    return _EXIT_CODES[verdict.outcome]


def _train(config: TrainingConfig, world: World, listener: SignalListener) -> Verdict:
    parts = load_parts(config)
    return carry_out(build_run(config, parts, world, listener), parts)


def carry_out(run: Run, parts: Parts, progress: Progress | None = None) -> Verdict:
    """Say what will be done, train, and close what was open; on every rank.

    ``progress`` is for who wants to know where the training stands afterwards; it starts where ``run`` does.
    """
    failed = True
    try:
        if run.world.first:
            show(run, parts.data, parts.tokenizer)
        verdict = train(run, progress or Progress.of(run))
        failed = verdict.outcome is Outcome.FAILED
    except TrainingDiverged as error:
        verdict = Verdict(outcome=Outcome.FAILED, step=error.step, reason=str(error))
    except BaseException:
        if run.checkpoints is not None:
            # While the ranks can still talk: what was saved before the failure is not lost with it.
            run.checkpoints.settle()
        raise
    finally:
        if run.profiler is not None:
            run.profiler.close()
        # Whatever ended it: logs are flushed, and the terminal gets its cursor back before an error is told.
        if run.metrics is not None:
            run.metrics.close(failed=failed)
    _close(run, verdict)
    return verdict


def _close(run: Run, verdict: Verdict) -> None:
    """Seal the checkpoints of a finished training, and draw the curve."""
    if run.checkpoints is not None:
        if verdict.outcome is Outcome.COMPLETE:
            run.checkpoints.complete({"steps": verdict.step})
        else:
            run.checkpoints.close()
    if run.metrics is not None:
        _draw(Path(run.config.logger.log_dir))


def _draw(log_dir: Path) -> None:
    """The loss curve beside the metrics; nothing before the first step."""
    try:
        found = curves.Curves.read(log_dir / METRICS)
    except UserError:
        return
    curves.draw_png(found, log_dir / "loss.png")


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


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m skills_pipe.training.sft",
        description="Fine-tune a model; see docs/configuration.md for the keys.",
        epilog="Everything else is an override of the configuration: key=value, ++new.key=value, ~key.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, help="YAML file laid over the packaged defaults")
    parser.add_argument(
        "--strict", type=_truth, default=True, metavar="true|false", help="refuse unknown keys (default) or ignore them"
    )
    arguments, overrides = parser.parse_known_args(argv)
    return arguments, overrides


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError("true or false")
    return text.lower() == "true"


if __name__ == "__main__":
    end(main)
