"""Fixtures of the tests through ssh."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.availability import need
from tests.ssh.login_node import LoginNode, why_no_login_node


@pytest.fixture(scope="module")
def login_node() -> Iterator[LoginNode]:
    """A login node without Slurm."""
    need(why_no_login_node())
    with LoginNode(variables={"ONLY_THERE": "yes"}) as node:
        yield node
