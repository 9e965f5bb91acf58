"""Fixtures of the whole suite."""

import re
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

from skills_pipe.training.importing import importing
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

_RANKS = re.compile(r"\b((two|four|eight)_ranks|Ranks)\b")
"""Fixtures of tests/training/conftest.py, and what they are."""

# No test is judged by its time: a busy machine would fail it.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A suite that was started in the background, or by nohup, ignores these, and so would the programs that its tests stop.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Each file goes to one process, and all files whose tests need ranks to the same one: with `--dist=loadfile`.

    Ranks that stay alive take gigabytes and seconds to start: two processes would have two sets of them.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "ranks" if _needs_ranks(self.config.rootpath / file) else file

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Modules of tests import torch and transformers; no garbage is looked for among them, now or later."""
    with importing():
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that need ranks come first, then those that hold slow tests: what is left at the end is short."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("slurm")}
    items.sort(key=lambda item: (not _needs_ranks(item.path), item.path not in slow))


@cache
def _needs_ranks(path: Path) -> bool:
    return bool(_RANKS.search(path.read_text(encoding="utf-8")))
