"""What ``ns data preview`` and ``ns data doctor`` share: programs that look at rows and train nothing.

On this machine they run in the foreground, with the terminal's colours and their own exit code; nothing is recorded.
On a cluster they are a job without a GPU.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from skills_pipe.pipeline.checks.finding import Finding, error
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.data_names import as_jobs_see
from skills_pipe.pipeline.commands.log_folder import log_folder
from skills_pipe.pipeline.launch import Launcher
from skills_pipe.pipeline.options.declaration import argument, option
from skills_pipe.pipeline.options.groups import JobOptions, resources
from skills_pipe.pipeline.options.overrides import override
from skills_pipe.pipeline.plan import Command, Job, Plan, Stage

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.decisions.preview import Preview
    from skills_pipe.pipeline.submit import Submission


@dataclass(frozen=True, kw_only=True)
class DataOptions(JobOptions):
    """Data; keys of the trainer are given as ++key=value, and mean here what they mean in training."""

    file: str | None = argument(
        None,
        metavar="FILE",
        help="rows to train on, or a data set on the Hugging Face hub by its id or name; not needed where --config "
        "names them",
    )
    hf_model: str | None = option(
        None, metavar="PATH|ID", help="model whose tokenizer is used; not needed where --config names one"
    )
    validation_data: str | None = option(None, metavar="PATH|ID|NAME", help="rows to validate on")
    config: str | None = option(None, metavar="PATH", help="configuration of a training run, in YAML")


OptionsT = TypeVar("OptionsT", bound=DataOptions)


@dataclass(frozen=True, kw_only=True)
class Look(Launcher[OptionsT]):
    """What such a command does."""

    def __call__(self, options: OptionsT, extras: tuple[str, ...]) -> Preview | Submission | int:  # type: ignore[override]
        """Run the program here and return its exit code; on a cluster, or where a plan is wanted, do as every command.

        Raises:
            UserError: see :meth:`Launcher.__call__`.
        """
        request = self._request(options, extras)
        wants_job = options.dry_run or options.run_after or options.log_dir or options.installation_command
        if wants_job or not request.cluster.is_local:
            return super().__call__(options, extras)
        job = request.plan.jobs[0]
        argv = [sys.executable, *job.command.argv[1:]]
        environment = {**os.environ, **request.cluster.environment()}
        return subprocess.run(argv, cwd=request.cluster.working_dir, env=environment, check=False).returncode


@dataclass(frozen=True, kw_only=True)
class Program:
    """The program of a command.

    Attributes:
        name: word behind ``ns data``.
        module: what is run.
        flags: its own arguments.
    """

    name: str
    module: str
    flags: tuple[str, ...]


def plan_of(program: Program, options: DataOptions, extras: tuple[str, ...], cluster: ClusterConfig, name: str) -> Plan:
    """One job without a GPU, which always runs; ``name`` is that of the experiment."""
    paths = {
        "hf_model": cluster.absolute_or_id(options.hf_model) if options.hf_model else None,
        "validation_data": as_jobs_see(options.validation_data, cluster) if options.validation_data else None,
        "config": cluster.absolute(options.config) if options.config else None,
    }
    file = as_jobs_see(options.file, cluster) if options.file else None
    argv = (
        *("python", "-m", program.module, *([file] if file else [])),
        *(f"--{key}={path}" for key, path in paths.items() if path),
        *(*program.flags, *extras),
    )
    job = Job(
        name=name,
        stage=program.name,
        command=Command(
            argv=argv,
            container="nemo-rl",
            working_dir=cluster.working_dir,
            installation_command=options.installation_command,
        ),
        resources=resources(options, cluster, num_gpus=0),
        log_dir=log_folder(options.log_dir, name, cluster),
    )
    # Data on the hub, which the program finds itself, is no input that could be checked here.
    rows = [path for path in (file, paths["validation_data"]) if path and path.startswith("/")]
    inputs = [*rows, *(path for path in (paths["hf_model"], paths["config"]) if path)]
    return Plan(
        expname=name,
        command=f"data {program.name}",
        stages=(Stage(name=program.name, output=None, inputs=tuple(inputs)),),
        jobs=(job,),
        mounts=cluster.mounts,
        run_after=options.run_after,
    )


def check_trainer_keys(request: Request[OptionsT]) -> list[Finding]:
    """What the trainer's configuration says about the keys."""
    from skills_pipe.training.config import check_overrides

    if request.options.config:
        # The file may be on the cluster; the program reads it with the keys, and tells the same.
        return []
    words = [*_given(request.options), *request.extras]
    return [error(problem.what, where=problem.where, fix=problem.fix) for problem in check_overrides(words)]


def _given(options: DataOptions) -> Iterator[str]:
    keys = {
        "data.train_data_path": options.file,
        "data.val_data_path": options.validation_data,
        "policy.model_name": options.hf_model,
    }
    return (override(key, value) for key, value in keys.items() if value)
