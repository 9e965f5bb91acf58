"""What torchrun is told of a node of Slurm."""

import pytest

from skills_pipe.training.node import node_arguments


@pytest.fixture(autouse=True)
def step(monkeypatch):
    """The third of four nodes, with one task on each."""
    variables = {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "gpu[007-009],gpu012",
        "SLURM_JOB_NUM_NODES": "4",
        "SLURM_NODEID": "2",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "2",
        "SLURM_LOCALID": "0",
    }
    for name, value in variables.items():
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
