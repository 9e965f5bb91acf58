"""``ns start_server``: a server as a job of its own."""

from typing import Any

from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.commands.start_server import StartServerOptions, plan
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.plan import Plan

SLURM = ClusterConfig(name="slurm", executor=ExecutorKind.SLURM, job_dir="/jobs", partition="gpu", cpu_partition="cpu")


def planned(**options: Any) -> Plan:
    base = {"model": "/m", "server_type": "vllm", "server_gpus": 8}
    return plan(build(StartServerOptions, base | options), (), SLURM)


def test_one_job_holds_the_server_and_tells_its_address():
    made = planned(server_nodes=2)
    (job,) = made.jobs
    assert [member.name for member in job.members] == ["main", "server"]
    assert (job.resources.num_gpus, job.resources.num_nodes, job.resources.partition) == (8, 2, "gpu")
    assert job.members[0].num_gpus == 0 and job.members[1].num_gpus == 8
    assert made.stages[0].inputs == ("/m",)


def test_it_is_found_from_other_nodes():
    assert planned().jobs[0].beside[0].public
    assert all(member.public for member in planned(with_sandbox=True).jobs[0].beside)


def test_who_waits_in_the_job_gets_no_secret():
    assert planned().jobs[0].command.secrets == ()
