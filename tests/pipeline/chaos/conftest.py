"""What chaos happens to: clusters as ``ns`` sees them, on each of the Slurms of the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind


@pytest.fixture
def cluster(slurm_forgetful: object, tmp_path: Path) -> ClusterConfig:
    """Four nodes; Slurm forgets a job two seconds after its end, and a dead node is noticed soon."""
    return ClusterConfig(name="test", executor=ExecutorKind.SLURM, job_dir=str(tmp_path / "jobs"))
