"""A process that submits a plan, for tests that cancel or kill it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.plan import Plan

_PROGRAM = """
import pickle, sys
from skills_pipe.pipeline.submit import submit
plan, cluster = pickle.load(sys.stdin.buffer)
submit(plan, cluster)
"""


def start_submitting(plan: Plan, cluster: ClusterConfig) -> subprocess.Popen[bytes]:
    """Begin to submit ``plan`` in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        pickle.dump((plan, cluster), pipe)
    return process
