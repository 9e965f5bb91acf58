"""Stages that turn checkpoints of a training run into one Hugging Face model: convert one step, or average several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from skills_pipe.artifacts.names import CHECKPOINTS, hf_model_step
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.paths import is_below
from skills_pipe.pipeline.plan import Command, Edge, Job, Resources, Stage

EXPORT = "skills_pipe.training.checkpoint.export"
AVERAGE = "skills_pipe.training.checkpoint.average"
LAST = "last"
BEST = "best"


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What to make of the checkpoints below ``training_dir``.

    Attributes:
        training_dir: folder with ``checkpoints/step_N``.
        output: folder for the model.
        step: number of a step, ``last`` or ``best``; not used with ``average``.
        average: steps to average; none to convert one step.
        remove: delete the models of the single steps once they are averaged.
        adapter_only: of adapters the adapters alone, as a PEFT folder; not used with ``average``.
    """

    training_dir: str
    output: str
    step: str = LAST
    average: tuple[int, ...] = ()
    remove: bool = False
    adapter_only: bool = False


@dataclass(frozen=True, kw_only=True)
class JobSetting:
    """What the jobs of a conversion share with their command.

    Attributes:
        expname: prefix of the names of jobs.
        log_dir: folder for logs.
        resources: of each job.
        edges: of the jobs that read checkpoints.
        upstream: stage that writes the checkpoints, None when they are there already.
        working_dir: folder in which jobs start.
        installation_command: shell text to run before each.
    """

    expname: str
    log_dir: str
    resources: Resources
    edges: tuple[Edge, ...] = ()
    upstream: str | None = None
    working_dir: str | None = None
    installation_command: str | None = None


def conversion(what: Conversion, around: JobSetting) -> tuple[tuple[Stage, ...], tuple[Job, ...]]:
    """Stages and jobs of a conversion, in an order in which every upstream comes first."""
    if not what.average:
        return _convert("convert-final-ckpt", what.step, what.output, what, around)
    stages: tuple[Stage, ...] = ()
    jobs: tuple[Job, ...] = ()
    for step in what.average:
        output = f"{what.training_dir}/{hf_model_step(step)}"
        more_stages, more_jobs = _convert(f"convert-ckpt-step_{step}", str(step), output, what, around)
        stages, jobs = stages + more_stages, jobs + more_jobs
    stage, job = _average(stages, jobs, what, around)
    return (*stages, stage), (*jobs, job)


def check_output(output: str, training_dir: str, average: tuple[int, ...] = (), *, flag: str) -> None:
    """Whether a model lies where it, or a restart of it, takes away nothing that it is made of.

    Raises:
        OptionError: it does not.
    """
    sources = [training_dir, *(f"{training_dir}/{hf_model_step(step)}" for step in average)]
    inside = is_below(output, f"{training_dir}/{CHECKPOINTS}")
    if inside or any(is_below(source, output) for source in sources):
        raise OptionError(
            f"{output} is, or holds, what the model is made of",
            where=flag,
            fix=f"give a folder of its own, such as {training_dir}/hf_model",
        )


def stage_job(name: str, argv: tuple[str, ...], around: JobSetting, *, edges: tuple[Edge, ...]) -> Job:
    """The only job of a stage; its name and its logs are the stage's."""
    return Job(
        name=f"{around.expname}-{name}",
        stage=name,
        command=Command(
            argv=argv,
            container="nemo-rl",
            working_dir=around.working_dir,
            installation_command=around.installation_command,
        ),
        resources=around.resources,
        log_dir=f"{around.log_dir}/{name}",
        edges=edges,
    )


def read_steps(value: Any) -> tuple[int, ...]:
    """Steps from ``"100, 200"``, or a list of numbers.

    Raises:
        OptionError: something else, or a step named twice.
    """
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    words = [word for item in items for word in (item.split(",") if isinstance(item, str) else [item])]
    shown = ",".join(str(word).strip() for word in words)
    try:
        steps = tuple(int(word) for word in words)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{shown!r} is not a list of steps", fix="write it as 100,200,300") from error
    if any(step < 1 for step in steps) or len(set(steps)) < len(steps) or not steps:
        raise OptionError(f"{shown!r} does not name different steps above 0", fix="write it as 100,200,300")
    return steps


def read_step(value: Any) -> str:
    """A step to convert: ``last``, ``best`` or a number."""
    text = str(value)
    if text not in (LAST, BEST) and not (text.isdecimal() and int(text) > 0):
        raise OptionError(f"{text!r} is not a step", fix="write a number above 0, last or best")
    return text


def _convert(
    name: str, step: str, output: str, what: Conversion, around: JobSetting
) -> tuple[tuple[Stage, ...], tuple[Job, ...]]:
    argv: tuple[str, ...] = ("python", "-m", EXPORT, f"--training_folder={what.training_dir}")
    argv += (f"--hf_ckpt_path={output}", *(("--adapter_only",) if what.adapter_only else ()))
    checkpoints = f"{what.training_dir}/{CHECKPOINTS}"
    stage = Stage(
        name=name,
        output=output,
        options={"step": step} | ({"adapter_only": True} if what.adapter_only else {}),
        inputs=() if around.upstream else (checkpoints,),
        upstream=(around.upstream,) if around.upstream else (),
    )
    job = stage_job(name, (*argv, f"--step={step}"), around, edges=around.edges)
    return (stage,), (job,)


def _average(
    converts: tuple[Stage, ...], jobs: tuple[Job, ...], what: Conversion, around: JobSetting
) -> tuple[Stage, Job]:
    steps = ",".join(str(step) for step in what.average)
    argv = ("python", "-m", AVERAGE, f"--checkpoint_dir={what.training_dir}", f"--steps={steps}")
    argv += (f"--output={what.output}", *(("--remove",) if what.remove else ()))
    stage = Stage(
        name="average-ckpt",
        output=what.output,
        options={"steps": sorted(what.average)},
        upstream=tuple(stage.name for stage in converts),
    )
    return stage, stage_job(stage.name, argv, around, edges=tuple(Edge(upstream=job.name) for job in jobs))
