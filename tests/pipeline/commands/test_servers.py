"""Servers in jobs: the commands that their own documentation gives, and what cannot be started."""

import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.commands.servers import Hosted, HostOptions, ServerType, sandbox_member, server_member
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.plan import Member

PORT = {"SKILLS_PIPE_SERVER_PORT": "12345", "SKILLS_PIPE_SERVER_HOST": "node7", "SKILLS_PIPE_SERVER_JOIN_PORT": "12346"}


@dataclass(frozen=True, kw_only=True)
class Options(HostOptions):
    """Options of a server alone."""


def server(kind: str, **options: Any) -> Member:
    return server_member(Hosted(model="/m", server_type=ServerType(kind), options=build(Options, options)))


def started(member: Member, *, node: int = 0) -> list[str]:
    """The words that a process of the server is really started with: its shell runs, and prints them."""
    shell, flag, script, *words = member.command.argv
    script = script.replace("exec ", "printf '%s\\n' ")
    environment = {**PORT, "SLURM_NODEID": str(node), "PATH": "/usr/bin:/bin"}
    answer = subprocess.run([shell, flag, script, *words], env=environment, capture_output=True, text=True, check=True)
    return answer.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (
            "vllm",
            {},
            "vllm serve /m --host 0.0.0.0 --served-model-name /m --tensor-parallel-size 8 --port 12345",
        ),
        (
            "vllm",
            {"server_args": "-tp 4 --data-parallel-size 2 --chat-template 'a b'"},
            "vllm serve /m --host 0.0.0.0 --served-model-name /m -tp 4 --data-parallel-size 2 --chat-template a b "
            "--port 12345",
        ),
        (
            "sglang",
            {},
            "python -m sglang.launch_server --model-path /m --host 0.0.0.0 --served-model-name /m --tp 8 --port 12345",
        ),
        ("trtllm", {}, "trtllm-serve /m --host 0.0.0.0 --tp_size 8 --port 12345"),
        (
            "megatron",
            {"server_entrypoint": "/opt/lm/tools/run_dynamic_text_generation_server.py"},
            "python -m torch.distributed.run --nproc-per-node=8 /opt/lm/tools/run_dynamic_text_generation_server.py "
            "--load /m --host 0.0.0.0 --tensor-model-parallel-size 8 --port 12345",
        ),
        (
            "generic",
            {"server_entrypoint": "/opt/serve.py", "server_args": "--fast"},
            "python /opt/serve.py --model /m --num_gpus 8 --num_nodes 1 --fast --port 12345",
        ),
        (
            "vllm",
            {"server_entrypoint": "-m my.server"},
            "python -m my.server --model /m --num_gpus 8 --num_nodes 1 --port 12345",
        ),
    ],
)
def test_the_command_of_each_type(kind, options, expected):
    assert " ".join(started(server(kind, server_gpus=8, **options))) == expected


@pytest.mark.parametrize(
    ("kind", "node", "expected"),
    [
        (
            "vllm",
            0,
            "vllm serve /m --host 0.0.0.0 --served-model-name /m --tensor-parallel-size 8 --pipeline-parallel-size 2 "
            "--distributed-executor-backend mp --nnodes 2 --node-rank 0 --master-addr node7 --master-port 12346 "
            "--port 12345",
        ),
        (
            "vllm",
            1,
            "vllm serve /m --host 0.0.0.0 --served-model-name /m --tensor-parallel-size 8 --pipeline-parallel-size 2 "
            "--distributed-executor-backend mp --nnodes 2 --node-rank 1 --master-addr node7 --master-port 12346 "
            "--headless --port 12345",
        ),
        (
            "sglang",
            1,
            "python -m sglang.launch_server --model-path /m --host 0.0.0.0 --served-model-name /m --tp 16 --nnodes 2 "
            "--node-rank 1 --dist-init-addr node7:12346 --port 12345",
        ),
        ("trtllm", 0, "trtllm-llmapi-launch trtllm-serve /m --host 0.0.0.0 --tp_size 16 --port 12345"),
        (
            "megatron",
            1,
            "python -m torch.distributed.run --nproc-per-node=8 --nnodes=2 --node-rank=1 --master-addr=node7 "
            "--master-port=12346 /s.py --load /m --host 0.0.0.0 --tensor-model-parallel-size 8 "
            "--pipeline-model-parallel-size 2 --port 12345",
        ),
    ],
)
def test_the_command_on_two_nodes(kind, node, expected):
    options = {"server_entrypoint": "/s.py"} if kind == "megatron" else {}
    member = server(kind, server_gpus=8, server_nodes=2, **options)
    assert " ".join(started(member, node=node)) == expected
    assert (member.nodes, member.tasks_per_node) == (2, 8 if kind == "trtllm" else 1)


def test_ranks_of_trtllm_on_several_nodes_are_started_by_srun_with_mpi():
    assert server("trtllm", server_gpus=8, server_nodes=2).command.env == (("SLURM_MPI_TYPE", "pmix"),)
    assert server("trtllm", server_gpus=8).command.env == ()


def test_a_server_is_a_service_that_is_waited_for():
    member = server("vllm", server_gpus=1, server_wait_timeout=60)
    assert (member.service, member.ready, member.ready_seconds) == (True, "/health", 60)
    assert member.command.container == "vllm"
    assert server("generic", server_entrypoint="x", server_container="mine").command.container == "mine"
    assert server("generic", server_entrypoint="x").ready == "/v1/models"


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("hf", {}, "cannot be started"),
        ("openai", {}, "cannot be started"),
        ("vllm", {}, "needs GPUs"),
        ("generic", {}, "needs --server_entrypoint"),
        ("megatron", {"server_gpus": 8}, "needs --server_entrypoint"),
        ("vllm", {"server_gpus": -1}, "--server_gpus is -1"),
        ("vllm", {"server_gpus": 1, "server_nodes": 0}, "--server_nodes is 0"),
        ("vllm", {"server_gpus": 1, "server_args": "'"}, "cannot be split into words"),
    ],
)
def test_what_cannot_be_started_is_refused(kind, options, told):
    with pytest.raises(OptionError, match=told):
        server(kind, **options)


def test_a_sandbox_sees_neither_secrets_nor_mounts():
    member = sandbox_member(build(Options, {}))
    assert member.command.secrets == () and not member.command.mounts and member.service
    assert sandbox_member(build(Options, {"keep_mounts_for_sandbox": True})).command.mounts
