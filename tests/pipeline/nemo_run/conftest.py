"""An interpreter with nemo-run, which lives in an environment of its own: `make test-nemo-run` makes it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).parents[3] / ".venv-nemo-run/bin/python"


@pytest.fixture(scope="session")
def nemo_run_python() -> str:
    """Path of the interpreter."""
    path = Path(os.environ.get("NEMO_RUN_PYTHON") or _DEFAULT)
    if not path.exists():
        pytest.skip(f"there is no {path} with nemo-run: run `make test-nemo-run`, or set NEMO_RUN_PYTHON")
    return str(path)
