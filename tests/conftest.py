"""Fixtures of the whole suite."""

import signal

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

# A suite that was started in the background ignores Ctrl-C, and so would the programs that its tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
