"""Real little programs that jobs of the tests run, and plans made of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.plan import Command, Edge, Job, Plan, Resources, Stage, chain, gate

_SEAL = """
import sys
from pathlib import Path
from skills_pipe.artifacts import manifest
output = Path(sys.argv[1])
output.parent.mkdir(parents=True, exist_ok=True)
output.write_text(sys.argv[2])
manifest.seal(output, kind="test")
print("made", output.name)
"""

# Behaves like a training job: goes on from the last step_N, writes the next ones, and leaves a verdict.
_TRAIN = """
import os, signal, sys, time
from pathlib import Path
from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.pipeline.executors.chain import latest_checkpoint
folder, total, moods = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
folder.mkdir(parents=True, exist_ok=True)
count = len(list(folder.glob("job-*")))
(folder / f"job-{count}").touch()
mood = moods[min(count, len(moods) - 1)]
step = max(latest_checkpoint(folder), 0)
verdict = Path(os.environ["SKILLS_PIPE_VERDICT_FILE"])
print("job", count, "is in the mood to", mood, "at step", step, flush=True)
if mood == "crash":
    os.abort()
if mood == "refuse":
    Verdict(outcome=Outcome.FAILED, step=step, reason="the data is missing").write(verdict)
    sys.exit(2)
if mood == "save-on-term":
    signal.signal(signal.SIGTERM, lambda *_: Path(os.environ["SKILLS_PIPE_SAVE_NOW_FILE"]).touch())
if mood in ("wait-for-save", "save-on-term", "save-too-long"):
    while not Path(os.environ["SKILLS_PIPE_SAVE_NOW_FILE"]).exists():
        time.sleep(0.05)
if mood == "save-too-long":
    (folder / ".tmp-step_9").mkdir()
    (folder / ".tmp-step_9" / "half").write_text("of a checkpoint")
    time.sleep(3600)
if mood in ("step", "step-and-crash", "finish"):
    step = total if mood == "finish" else step + 1
    (folder / f"step_{step}").mkdir(exist_ok=True)
    manifest.seal(folder / f"step_{step}", kind="checkpoint")
if mood == "step-and-crash":
    os.abort()
if step >= total:
    manifest.seal(folder, kind="training")
    Verdict(outcome=Outcome.COMPLETE, step=step, reason="all steps are done").write(verdict)
    sys.exit(0)
Verdict(outcome=Outcome.CONTINUE, step=step, reason="the time is up").write(verdict)
sys.exit(75)
"""


def make(output: Path, text: str = "x") -> tuple[str, ...]:
    """Command that makes a file and seals it."""
    return ("python", "-c", _SEAL, str(output), text)


def shell(text: str) -> tuple[str, ...]:
    """Command of a line of shell."""
    return ("bash", "-c", text)


def train(folder: Path, *moods: str, total: int = 2) -> tuple[str, ...]:
    """Command of a training job; its k-th start is in mood k: step, finish, crash, step-and-crash,
    refuse, wait-for-save, save-on-term, save-too-long."""
    return ("python", "-c", _TRAIN, str(folder), str(total), ",".join(moods))


def job(name: str, argv: tuple[str, ...], folder: Path, *after: str, gpus: int = 0, stage: str | None = None) -> Job:
    """A job of one process that waits for the jobs ``after``; its logs are in ``folder/logs``."""
    return Job(
        name=name,
        stage=stage or name,
        command=Command(argv=argv, env=(("NAME_OF_JOB", name),)),
        resources=Resources(num_gpus=gpus),
        log_dir=str(folder / "logs"),
        edges=tuple(Edge(upstream=upstream) for upstream in after),
    )


def plan_of(*jobs: Job, **outputs: Path) -> Plan:
    """A plan in which each stage is one job; ``outputs`` are the files of those that make one."""
    stages = tuple(
        Stage(
            name=job.stage,
            output=str(outputs[job.stage]) if job.stage in outputs else None,
            upstream=tuple(edge.upstream for edge in job.edges),
        )
        for job in jobs
    )
    return Plan(expname="exp", command="test", stages=stages, jobs=jobs)


def training_plan(folder: Path, *moods: str, jobs: int, total: int = 2, requeue: bool = False) -> Plan:
    """A chain of training jobs, then a stage that needs it finished."""
    template = job("sft", train(folder / "checkpoints", *moods, total=total), folder, stage="sft")
    segments = chain(template, count=jobs, requeue=requeue)
    convert = replace(job("convert", make(folder / "model"), folder), edges=gate(segments))
    return Plan(
        expname="exp",
        command="test",
        stages=(
            Stage(name="sft", output=str(folder / "checkpoints")),
            Stage(name="convert", output=str(folder / "model"), upstream=("sft",)),
        ),
        jobs=(*segments, convert),
    )


def local(folder: Path) -> ClusterConfig:
    """This machine, with records below ``folder``."""
    return ClusterConfig(name="local", job_dir=str(folder / "jobs"))


def until(condition: Callable[[], object], what: str, *, at_most: float = 300.0) -> None:
    """Wait for a state; the bound only keeps a broken test from hanging."""
    deadline = time.monotonic() + at_most
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"never came true: {what}")
        time.sleep(0.02)
