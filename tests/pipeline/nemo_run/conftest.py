"""What the tests with nemo-run need: an interpreter that has it, and a Docker daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.nemo_run.docker_daemon import DockerDaemon, why_no_docker
from tests.slurm.image import SmallImage

_DEFAULT = Path(__file__).parents[3] / ".venv-nemo-run/bin/python"


@pytest.fixture(scope="session")
def nemo_run_python() -> str:
    """Path of the interpreter."""
    path = Path(os.environ.get("NEMO_RUN_PYTHON") or _DEFAULT)
    if not path.exists():
        pytest.skip(f"there is no {path} with nemo-run: run `make test-nemo-run`, or set NEMO_RUN_PYTHON")
    return str(path)


@pytest.fixture(scope="session")
def docker_daemon(container_image: SmallImage) -> Iterator[DockerDaemon]:
    """A daemon that has the small image."""
    reason = why_no_docker()
    if reason:
        pytest.skip(reason)
    with DockerDaemon(container_image.folder) as daemon:
        yield daemon


@pytest.fixture
def docker(docker_daemon: DockerDaemon, monkeypatch: pytest.MonkeyPatch) -> DockerDaemon:
    """The daemon, which programs find during the test."""
    monkeypatch.setenv("DOCKER_HOST", docker_daemon.host)
    return docker_daemon
