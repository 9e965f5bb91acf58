"""Fixtures of the whole suite."""

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
