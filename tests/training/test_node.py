"""What torchrun is told of a node of Slurm."""

import pytest

from skills_pipe.training.node import node_arguments
from tests.training.test_slurm_step import STEP


@pytest.fixture(autouse=True)
def step(monkeypatch):
    """The third of four nodes, with one task on each."""
    for name, value in (STEP | {"SLURM_JOB_ID": "77"}).items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT", "SUBMITIT_EXECUTOR"):
        monkeypatch.delenv(name, raising=False)


def test_a_node_knows_its_number_and_where_all_meet():
    told = dict(word.split("=") for word in node_arguments())
    assert (told["--nnodes"], told["--node-rank"], told["--master-addr"]) == ("4", "2", "gpu007")
    assert 1024 < int(told["--master-port"]) < 65536


def test_all_nodes_of_a_job_meet_at_one_port_and_those_of_another_at_another(monkeypatch):
    port = node_arguments()[3]
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NODEID", "0")
    assert node_arguments()[3] == port
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert node_arguments()[3] != port
