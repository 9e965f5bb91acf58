"""Slurm: its programs, what its words mean, submitting in one transaction, and states of recorded runs."""
