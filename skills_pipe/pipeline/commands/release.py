"""Stages behind a conversion: compare the model's loss with the trainer's, pack it, put it on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skills_pipe.artifacts.names import validation_report
from skills_pipe.errors import ClusterConfigError, OptionError
from skills_pipe.pipeline.checks.finding import Checked, error
from skills_pipe.pipeline.commands.conversion import JobSetting, stage_job
from skills_pipe.pipeline.plan import Edge, Job, Launch, Resources, Stage

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.convert import ConvertOptions

ARCHIVE_SUFFIX = ".nemo"

_UNPACK = "skills_pipe.training.release.archive.unpack"
_PACK = "skills_pipe.training.release.archive.pack"
_VALIDATE = "skills_pipe.training.release.validate"
_PUSH = "skills_pipe.training.release.hub"

_REPO = re.compile(r"([\w.-]+/)?[\w][\w.-]{0,95}")

Stages = tuple[tuple[Stage, ...], tuple[Job, ...]]


@dataclass(frozen=True, kw_only=True)
class Release:
    """What to do with a model once it is made.

    Attributes:
        model: its folder.
        validate: compare its loss with the trainer's; nothing follows where they differ.
        validation: what the jobs of that comparison ask for.
        archive: file to pack it into.
        repo: on the hub.
        public: a repository that does not exist yet is made for everybody.
    """

    model: str
    validate: bool
    validation: Resources
    archive: str | None
    repo: str | None
    public: bool


def release(what: Release, around: JobSetting, before: Stages) -> Stages:
    """The stages and jobs of a conversion with those that follow."""
    stages, jobs = before
    if what.validate:
        stage, job = _validation(what, around, stages[-1], jobs[-1])
        stages, jobs = (*stages, stage), (*jobs, job)
    # Each of them after the comparison, not one after the other.
    upstream, last = stages[-1], jobs[-1]
    for stage, job in _outlets(what, around, upstream, last):
        stages, jobs = (*stages, stage), (*jobs, job)
    return stages, jobs


def unpacking(archive: str, output: str, around: JobSetting) -> Stages:
    """The stage that makes a model of an archive."""
    stage = Stage(name="unpack-archive", output=output, inputs=(archive,))
    argv = ("python", "-m", _UNPACK, f"--archive={archive}", f"--output={output}")
    return (stage,), (stage_job(stage.name, argv, around, edges=around.edges),)


def read_repo(value: Any) -> str:
    """Name of a repository on the hub, ``name`` or ``org/name``."""
    if not isinstance(value, str) or not _REPO.fullmatch(value):
        raise OptionError(f"{value!r} is no repository of the hub", fix="write it as ORGANISATION/NAME")
    return value


def read_archive(value: Any) -> str:
    """Path of an archive to write."""
    if not isinstance(value, str) or not value.endswith(ARCHIVE_SUFFIX):
        raise OptionError(f"{value!r} does not end in {ARCHIVE_SUFFIX}", fix=f"name a {ARCHIVE_SUFFIX} file")
    return value


def check_token(request: Request[ConvertOptions]) -> Checked:
    """Whether jobs will have a token to push with."""
    subject = "token of the hub"
    if request.options.push_to_hub is None:
        return Checked(subject=subject)
    try:
        known = "HF_TOKEN" in request.cluster.environment()
    except ClusterConfigError:
        return Checked(subject=subject)  # told by the checks of the configuration
    missing = error(
        "there is no token for the Hugging Face hub",
        where="--push_to_hub",
        fix="export HF_TOKEN, or run `hf auth login`, with a token that may write",
    )
    return Checked(subject=subject, findings=() if known else (missing,))


def _validation(what: Release, around: JobSetting, made: Stage, job: Job) -> tuple[Stage, Job]:
    report = str(validation_report(Path(what.model)))
    stage = Stage(name="validate-model", output=report, upstream=(made.name,))
    argv = ("python", "-m", _VALIDATE, f"--model={what.model}", f"--report={report}")
    setting = replace(around, resources=what.validation)
    made_job = stage_job(stage.name, argv, setting, edges=(Edge(upstream=job.name),))
    if what.validation.num_gpus:
        made_job = replace(made_job, command=replace(made_job.command, launch=Launch.PER_GPU))
    return stage, made_job


def _outlets(what: Release, around: JobSetting, upstream: Stage, last: Job) -> Iterator[tuple[Stage, Job]]:
    edges = (Edge(upstream=last.name),)
    if what.archive is not None:
        stage = Stage(name="pack-archive", output=what.archive, upstream=(upstream.name,))
        argv = ("python", "-m", _PACK, f"--model={what.model}", f"--output={what.archive}")
        yield stage, stage_job(stage.name, argv, around, edges=edges)
    if what.repo is not None:
        report = f"{what.model}.pushed.json"
        options = {"repo": what.repo, "public": what.public}
        stage = Stage(name="push-to-hub", output=report, options=options, upstream=(upstream.name,))
        push = ("python", "-m", _PUSH, f"--model={what.model}", f"--repo={what.repo}", f"--report={report}")
        yield stage, stage_job(stage.name, (*push, *(("--public",) if what.public else ())), around, edges=edges)
