"""``ns prepare_data``: fetch the data of benchmarks, or make training data of generations."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.checks.benchmark_data import DEFAULT_SPLIT, DataOptions, check_names, data_dir_of
from skills_pipe.pipeline.checks.finding import Checked
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.launch import launch
from skills_pipe.pipeline.options.declaration import argument, option
from skills_pipe.pipeline.options.groups import EXPNAME_HELP, JobOptions, resources
from skills_pipe.pipeline.options.overrides import of_result, path_of, value_of
from skills_pipe.pipeline.plan import Command, Job, Plan, Stage

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request

BENCHMARKS = "skills_pipe.evaluation.prepare_benchmarks"
SFT_DATA = "skills_pipe.training.prepare_data"
SFT_STAGE = "sft-data"


@dataclass(frozen=True, kw_only=True)
class PrepareDataOptions(DataOptions, JobOptions):
    """Data."""

    benchmarks: tuple[str, ...] = argument((), metavar="BENCHMARK", help="benchmarks whose data to fetch")
    config_name: str | None = option(
        None, metavar="NAME", help="configuration for training data: math_sft, or a file in config_path"
    )
    config_path: str | None = option(None, metavar="PATH", help="folder of your own configurations for training data")
    expname: str = option("prepare-data", help=EXPNAME_HELP)


def plan(options: PrepareDataOptions, extras: tuple[str, ...], cluster: ClusterConfig) -> Plan:
    """One job for each benchmark; or one that makes training data, when ``++input_files`` is given."""
    files = _input_patterns(extras)
    if bool(files) == bool(options.benchmarks):
        raise OptionError(
            "name benchmarks or give ++input_files, not " + ("both" if files else "none"),
            fix="`ns prepare_data gsm8k` fetches a benchmark; "
            "`ns prepare_data ++input_files=... ++output_path=...` makes training data",
        )
    if files:
        pairs = [_training_data(options, extras, files, cluster)]
    else:
        check_names(options.benchmarks, where="prepare_data")
        pairs = [_benchmark(options, name, extras, cluster) for name in options.benchmarks]
    return Plan(
        expname=options.expname,
        command="prepare_data",
        stages=tuple(stage for stage, _ in pairs),
        jobs=tuple(job for _, job in pairs),
        mounts=cluster.mounts,
        run_after=options.run_after,
    )


def check_extras(request: Request[PrepareDataOptions]) -> Checked:
    """What the preparation of training data says about its ``++`` keys."""
    subject = "keys of the preparation"
    jobs = [job for job in request.plan.jobs if job.command.argv[2] == SFT_DATA]
    if not jobs:
        return Checked(subject=subject, left_out="no training data is made")
    if request.options.config_path and not request.cluster.is_local:
        return Checked(subject=subject, left_out="the configuration is on the cluster")
    from skills_pipe.pipeline.checks.program_keys import check_keys

    return check_keys(subject, [job.command.argv[2:] for job in jobs])


COMMAND = LauncherCommand(
    options=PrepareDataOptions,
    run=launch(plan, checks={"keys of the preparation": check_extras}, shows=lambda job: True),
    takes_extras=True,
)


def _benchmark(
    options: PrepareDataOptions, name: str, extras: tuple[str, ...], cluster: ClusterConfig
) -> tuple[Stage, Job]:
    if options.config_name or options.config_path:
        raise OptionError("--config_name and --config_path are for training data", fix="drop them")
    data_dir = data_dir_of(options, cluster)
    # Keys begin with the name of their benchmark.
    own = tuple(word for word in extras if word.lstrip("+").startswith(f"{name}."))
    known = {f"{benchmark}." for benchmark in options.benchmarks}
    stray = [word for word in extras if not word.lstrip("+").startswith(tuple(known))]
    if stray:
        raise OptionError(f"{stray[0]!r} is for no benchmark here", fix=f"write ++{name}.KEY=VALUE")
    stage = Stage(name=name, output=f"{data_dir}/{name}/{DEFAULT_SPLIT}.jsonl", options=of_result(own))
    argv = ("python", "-m", BENCHMARKS, name, f"--data_dir={data_dir}", *own)
    return stage, _job(options, stage, argv, f"{data_dir}/logs", cluster)


def _training_data(
    options: PrepareDataOptions, extras: tuple[str, ...], patterns: list[str], cluster: ClusterConfig
) -> tuple[Stage, Job]:
    path = value_of(extras, "output_path")
    if not path:
        raise OptionError("++output_path is missing", fix="name the file to write: ++output_path=sft-data.jsonl")
    output = cluster.absolute(path)
    others = [path_of(extras, key) for key in ("tokenizer", "contamination_file")]
    files = [path for path in (path_of(extras, key) for key in ("prompt_config", "code_tags")) if _is_yaml(path)]
    if options.config_path:
        # The folder, for one file in it may include others.
        files.append(options.config_path)
    stage = Stage(
        name=SFT_STAGE,
        output=output,
        options={"config": options.config_name, **of_result(extras)},
        inputs=(
            *map(cluster.absolute, patterns),
            *(cluster.absolute_or_id(other) for other in others if other),
            *(cluster.absolute(file) for file in files if file),
        ),
    )
    argv = ["python", "-m", SFT_DATA]
    argv += [f"--config-name={options.config_name}"] if options.config_name else []
    argv += [f"--config-path={cluster.absolute(options.config_path)}"] if options.config_path else []
    logs = f"{posixpath.dirname(output)}/prepare-data-logs"
    return stage, _job(options, stage, (*argv, *extras), logs, cluster)


def _input_patterns(extras: tuple[str, ...]) -> list[str]:
    """File patterns to read from: separated by commas, else by spaces."""
    texts = [value_of(extras, key) or "" for key in ("input_files", "preprocessed_dataset_files")]
    parts = [part for text in texts for part in text.split("," if "," in text else None)]
    return [part.strip() for part in parts if part.strip()]


def _is_yaml(value: str | None) -> bool:
    """Whether the value of a key names a file; it may name a packaged one otherwise."""
    return value is not None and value.endswith(".yaml")


def _job(options: PrepareDataOptions, stage: Stage, argv: tuple[str, ...], logs: str, cluster: ClusterConfig) -> Job:
    return Job(
        name=f"{options.expname}-{stage.name}",
        stage=stage.name,
        command=Command(argv=argv, working_dir=cluster.working_dir, installation_command=options.installation_command),
        resources=resources(options, cluster, num_gpus=0),
        log_dir=cluster.absolute(options.log_dir) if options.log_dir else logs,
    )
