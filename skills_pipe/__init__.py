"""Fine-tune language models on a Slurm cluster, or on this machine, from one command line: ``ns``."""

__version__ = "0.1.0"
