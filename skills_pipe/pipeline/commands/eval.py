"""``ns eval``: evaluate a model on benchmarks, one job each, and gather the figures in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skills_pipe.artifacts.names import EVAL_RESULTS
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.checks.benchmark_data import DEFAULT_SPLIT, DataOptions, check_names, data_dir_of
from skills_pipe.pipeline.checks.finding import Checked, Finding, error
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.beside import beside_members, check_programs
from skills_pipe.pipeline.commands.servers import Hosted, HostOptions, ServerType
from skills_pipe.pipeline.console.command import Command as LauncherCommand
from skills_pipe.pipeline.launch import launch
from skills_pipe.pipeline.options.declaration import option, switch
from skills_pipe.pipeline.options.groups import EXPNAME_HELP, JobOptions, resources
from skills_pipe.pipeline.options.overrides import of_result, path_of
from skills_pipe.pipeline.plan import Command, Edge, Job, Plan, Stage

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Check, Request

EVALUATE = "skills_pipe.evaluation.evaluate"
SUMMARIZE = "skills_pipe.evaluation.summarize"
SUMMARY = "summarize-results"


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A benchmark and how often it is run: ``seeds`` sampled runs, or one greedy run when that is 0."""

    benchmark: str
    seeds: int = 0

    def __str__(self) -> str:
        """As it is typed: ``gsm8k:4``."""
        return f"{self.benchmark}:{self.seeds}" if self.seeds else self.benchmark


def read_benchmarks(value: Any) -> tuple[Sampling, ...]:
    """Benchmarks from ``"gsm8k:4,math"`` or a list of such texts.

    Raises:
        OptionError: a number of seeds is none, or nothing is named.
    """
    items = [value] if isinstance(value, str) else list(value)
    words = [word.strip() for item in items for word in str(item).split(",") if word.strip()]
    if not words:
        raise OptionError("no benchmark is named", fix="name them as gsm8k,arithmetic:4")
    return tuple(_read_benchmark(word) for word in words)


@dataclass(frozen=True, kw_only=True)
class EvalOptions(HostOptions, DataOptions, JobOptions):
    """Evaluation."""

    model: str = option(
        metavar="PATH|ID", help="model: a folder, an id on the Hugging Face hub, or its name on the server"
    )
    server_type: ServerType = option(
        metavar="TYPE",
        help="what generates the answers: hf, in the job itself, or a server, one that runs at server_address or else "
        "one that each job starts for itself: vllm, sglang, trtllm, megatron, generic; openai runs elsewhere",
    )
    benchmarks: tuple[Sampling, ...] = option(
        parse=read_benchmarks,
        metavar="NAME[:N],...",
        help="benchmarks; with :N it is N sampled runs with different seeds, else one greedy run",
    )
    output_dir: str = option(metavar="PATH", help=f"folder for {EVAL_RESULTS} and the logs")
    expname: str = option("eval", help=EXPNAME_HELP)
    server_gpus: int | None = option(
        None, help="GPUs on each node of each job's server, or of the job that generates by itself; 0 for CPU cores"
    )
    server_address: str | None = option(None, metavar="URL", help="server that runs already, http://host:port")
    split: str | None = option(None, metavar="NAME", help=f"split of the data; by default {DEFAULT_SPLIT}")
    starting_seed: int = option(0, help="first seed of sampled runs")
    auto_summarize_results: bool = switch(
        True,
        on=("--auto_summarize_results",),
        off=("--no-auto_summarize_results",),
        help="leave out the job that gathers the figures of all benchmarks in one table",
    )


def plan(options: EvalOptions, extras: tuple[str, ...], cluster: ClusterConfig) -> Plan:
    """One independent job for each benchmark, then the summary."""
    names = tuple(sampling.benchmark for sampling in options.benchmarks)
    check_names(names, where="--benchmarks")
    pairs = [_evaluation(options, sampling, extras, cluster) for sampling in options.benchmarks]
    stages = tuple(stage for stage, _ in pairs)
    jobs = tuple(job for _, job in pairs)
    if options.auto_summarize_results:
        stages += (Stage(name=SUMMARY, output=None, upstream=names),)
        jobs += (_summary(options, cluster, jobs),)
    return Plan(
        expname=options.expname,
        command="eval",
        stages=stages,
        jobs=jobs,
        mounts=cluster.mounts,
        run_after=options.run_after,
    )


def check(request: Request[EvalOptions]) -> list[Finding]:
    """Whether something can generate, and whether there is data."""
    options = request.options
    findings = [*_check_server(options), *check_programs(request.plan, request.cluster)]
    for sampling in options.benchmarks:
        path = _data_path(options, sampling.benchmark, request.cluster)
        if path in request.missing:
            fix = f"run `ns prepare_data {sampling.benchmark}{request.cluster.flag}` with the same --data_dir"
            findings.append(error(f"there is no data for benchmark {sampling.benchmark!r}", where=path, fix=fix))
    return findings


def check_extras(request: Request[EvalOptions]) -> Checked:
    """What the evaluation itself says about its ``++`` keys."""
    subject = "keys of the evaluation"
    if not request.extras:
        return Checked(subject=subject, left_out="none are given")
    from skills_pipe.pipeline.checks.program_keys import check_keys

    jobs = [job for job in request.plan.jobs if job.stage != SUMMARY]
    # Which benchmark it is makes no difference, but sampling does; where the server will be is not known yet.
    kinds = {any(word.startswith("--num_random_seeds=") for word in job.command.argv): job for job in jobs}
    address = [] if request.options.server_type is ServerType.HF else ["--server_address=http://localhost"]
    return check_keys(subject, [(EVALUATE, *job.command.argv[3:], *address) for job in kinds.values()])


CHECKS: dict[str, Check[EvalOptions]] = {"benchmarks": check, "keys of the evaluation": check_extras}
"""Subject -> check, of this command."""

COMMAND = LauncherCommand(
    options=EvalOptions, run=launch(plan, checks=CHECKS, shows=lambda job: job.stage == SUMMARY), takes_extras=True
)


def _check_server(options: EvalOptions) -> list[Finding]:
    kind = options.server_type
    if kind is ServerType.HF and (options.server_address or options.server_entrypoint):
        given = "address" if options.server_address else "entrypoint"
        return [error(f"server type hf takes no {given}", where=f"--server_{given}", fix="drop it")]
    if kind is ServerType.OPENAI and not options.server_address:
        return [error("server type openai needs the address of a service", fix="add --server_address=https://...")]
    return []


def _hosted(options: EvalOptions, cluster: ClusterConfig) -> Hosted | None:
    """The server that each job starts for itself, if it does."""
    if options.server_address or options.server_type in (ServerType.HF, ServerType.OPENAI):
        return None
    return Hosted(
        model=cluster.absolute_or_id(options.model),
        server_type=options.server_type,
        options=options,
        working_dir=cluster.working_dir,
    )


def _read_benchmark(word: str) -> Sampling:
    name, colon, count = word.partition(":")
    if colon and not count.isdecimal():
        raise OptionError(
            f"{word!r} does not name a number of seeds", fix=f"write {name}:4, or {name} for one greedy run"
        )
    return Sampling(benchmark=name, seeds=int(count or 0))


def _evaluation(
    options: EvalOptions, sampling: Sampling, extras: tuple[str, ...], cluster: ClusterConfig
) -> tuple[Stage, Job]:
    name = sampling.benchmark
    output_dir = cluster.absolute(options.output_dir)
    hosted = _hosted(options, cluster)
    # A model of a server elsewhere is but a name.
    own = hosted is not None or options.server_type is ServerType.HF
    model = cluster.absolute_or_id(options.model) if own else options.model
    stage = Stage(
        name=name,
        output=f"{output_dir}/{EVAL_RESULTS}/{name}",
        options={
            "benchmark": name,
            "seeds": [sampling.seeds, options.starting_seed],
            "server_type": options.server_type.value,
            **of_result(extras),
            **({} if own else {"model": model}),
            **_server_identity(options, hosted),
        },
        inputs=(*((model,) if own else ()), _data_path(options, name, cluster), *_prompt(extras, cluster)),
    )
    argv = [
        *("python", "-m", EVALUATE),
        f"--benchmark={name}",
        f"--data_dir={data_dir_of(options, cluster)}",
        f"--model={model}",
        f"--output_dir={stage.output}",
        f"--server_type={options.server_type.value}",
        *([f"--server_address={options.server_address}"] if options.server_address else []),
        *([f"--split={options.split}"] if options.split else []),
        *([f"--num_random_seeds={sampling.seeds}"] if sampling.seeds else []),
        *([f"--starting_seed={options.starting_seed}"] if sampling.seeds else []),
        *extras,
    ]
    beside = beside_members(options, hosted)
    nodes = hosted.nodes if hosted else 1
    gpus = (options.server_gpus or 0) if own else 0
    return stage, Job(
        name=f"{options.expname}-{name}",
        stage=name,
        command=Command(
            argv=tuple(argv), working_dir=cluster.working_dir, installation_command=options.installation_command
        ),
        resources=resources(options, cluster, num_gpus=gpus, num_nodes=nodes),
        log_dir=_log_dir(options, cluster),
        beside=beside,
        main_gpus=0 if hosted else None,
    )


def _server_identity(options: EvalOptions, hosted: Hosted | None) -> dict[str, str]:
    """What about a server decides its answers: how it is cut over GPUs does not."""
    if hosted is None:
        return {}
    words = {"server_args": options.server_args, "server_entrypoint": options.server_entrypoint}
    return {name: value for name, value in words.items() if value}


def _prompt(extras: tuple[str, ...], cluster: ClusterConfig) -> tuple[str, ...]:
    """The prompt, when it is a file and not the name of a packaged one."""
    name = path_of(extras, "prompt_config")
    return (cluster.absolute(name),) if name and name.endswith(".yaml") else ()


def _summary(options: EvalOptions, cluster: ClusterConfig, jobs: tuple[Job, ...]) -> Job:
    return Job(
        name=f"{options.expname}-{SUMMARY}",
        stage=SUMMARY,
        command=Command(
            argv=("python", "-m", SUMMARIZE, cluster.absolute(options.output_dir)), working_dir=cluster.working_dir
        ),
        resources=resources(options, cluster, num_gpus=0, aside=True),
        log_dir=_log_dir(options, cluster),
        edges=tuple(Edge(upstream=job.name) for job in jobs),
    )


def _log_dir(options: EvalOptions, cluster: ClusterConfig) -> str:
    return cluster.absolute(options.log_dir or f"{options.output_dir}/eval-logs")


def _data_path(options: EvalOptions, benchmark: str, cluster: ClusterConfig) -> str:
    return f"{data_dir_of(options, cluster)}/{benchmark}/{options.split or DEFAULT_SPLIT}.jsonl"
