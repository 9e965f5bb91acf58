"""What the checks of a training's keys find, for the tests of each."""

from typing import Any

from skills_pipe.pipeline.checks.finding import Finding
from skills_pipe.pipeline.checks.request import Request
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.commands.sft import SftOptions, plan
from skills_pipe.pipeline.commands.sft.checks.keys import check_training
from skills_pipe.pipeline.options.declaration import build

SLURM = ClusterConfig(
    name="c",
    executor=ExecutorKind.SLURM,
    container_runtime=ContainerRuntime.PYXIS,
    job_dir="/jobs",
    account="me",
)
HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")
BASE = {
    "output_dir": "/workspace/run",
    "hf_model": "org/model",
    "training_data": "/data/d.jsonl",
    "num_gpus": 1,
}


def texts(findings: list[Finding]) -> str:
    return "\n".join(str(finding) for finding in findings)


def training_findings(*extras: str, cluster: ClusterConfig = SLURM, **changes: Any) -> list[Finding]:
    options = build(SftOptions, BASE | changes)
    request = Request(
        options=options, extras=extras, cluster=cluster, plan=plan(options, extras, cluster), missing=frozenset()
    )
    return list(check_training(request))
