"""Fixtures of the whole suite."""

from tests.slurm.fixtures import slurm, slurm_accounting, slurm_clusters, slurm_forgetful

__all__ = ["slurm", "slurm_accounting", "slurm_clusters", "slurm_forgetful"]
