"""The step of Slurm that this process is a task of, and where its tasks meet."""

from __future__ import annotations

import os

from submitit.helpers import TorchDistributedEnvironment

FIRST_PORT, PORTS = 30100, 2668
"""Ports where the tasks of a job may meet: above those of its servers (``pipeline/scripts/supervise.py``), below those
that Linux gives to outgoing connections (from 32768 on). submitit's own choice may be any of these."""


def read_step() -> TorchDistributedEnvironment:
    """What Slurm tells this process of its step: who it is among the tasks, and the address where they meet.

    The port follows from the number of the job, so that all tasks find the same; ``MASTER_PORT`` overrides it.
    """
    os.environ.setdefault("SUBMITIT_EXECUTOR", "slurm")
    step = TorchDistributedEnvironment()
    if "MASTER_PORT" not in os.environ:
        step.master_port = FIRST_PORT + int(os.environ["SLURM_JOB_ID"]) % PORTS
    return step
