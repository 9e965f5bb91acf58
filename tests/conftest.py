"""Fixtures of the whole suite."""

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
