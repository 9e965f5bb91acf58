"""Where the tasks of a step meet."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.pipeline.scripts import supervise
from skills_pipe.training.slurm_step import read_step

STEP = {
    "SLURM_JOB_NODELIST": "gpu[007-009],gpu012",
    "SLURM_JOB_NUM_NODES": "4",
    "SLURM_NODEID": "2",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
MEMBERS = range(supervise.FIRST_PORT, supervise.FIRST_PORT + supervise.PORTS + supervise.PORTS_PER_JOB)


def port_of(job, **more):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MASTER_PORT", raising=False)
        for name, value in (STEP | {"SLURM_JOB_ID": str(job)} | more).items():
            patch.setenv(name, value)
        return read_step().master_port


@given(job=st.integers(1, 2**26))
def test_no_server_of_a_job_and_no_outgoing_connection_is_given_the_port_where_its_tasks_meet(job):
    outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert MEMBERS.stop <= port_of(job) < outgoing


def test_all_tasks_of_a_job_find_the_same_and_those_of_the_next_job_another():
    assert port_of(77) == port_of(77, SLURM_PROCID="0", SLURM_NODEID="0") != port_of(78)


def test_a_port_of_the_users_own_is_kept():
    assert port_of(77, MASTER_PORT="29500") == 29500
