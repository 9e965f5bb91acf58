"""Fixtures of the whole suite."""

import signal

import pytest
from hypothesis import settings

from tests.slurm.fixtures import (
    charliecloud,
    container_image,
    pyxis,
    slurm,
    slurm_accounting,
    slurm_clusters,
    slurm_forgetful,
)

__all__ = [
    "charliecloud",
    "container_image",
    "pyxis",
    "slurm",
    "slurm_accounting",
    "slurm_clusters",
    "slurm_forgetful",
]

# No test is judged by its time: a busy machine would fail it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A suite that was started in the background, or by nohup, ignores these, and so would the programs that its tests stop.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that hold slow tests come first: what is left at the end is short, and all processes end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("slurm")}
    items.sort(key=lambda item: item.path not in slow)
