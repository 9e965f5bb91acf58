"""What a user may write for data: a path, the id of a data set on the Hugging Face hub, or the name of one."""

from __future__ import annotations

from pathlib import Path

from skills_pipe.errors import OptionError, did_you_mean
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.decisions.fingerprint import HUB_DATASET


def as_jobs_see(data: str, cluster: ClusterConfig) -> str:
    """A path as jobs see it; a name or an id as it is.

    On this machine what lies in the current folder is a path, whatever it is called. ``./squad`` is always one.
    """
    from skills_pipe.training.config.dataset_names import is_id, named_by

    path = cluster.absolute(data)
    if cluster.is_local and Path(path).exists():
        return path
    return data if named_by(data) or is_id(data) else path


def as_input(data: str, cluster: ClusterConfig) -> str:
    """The same as an input of a stage, where the hub's data sets begin with ``hf://datasets/``."""
    from skills_pipe.training.config.dataset_names import is_id

    seen = as_jobs_see(data, cluster)
    return f"{HUB_DATASET}{seen}" if is_id(seen) else seen


def check_data(option: str, data: str, cluster: ClusterConfig) -> None:
    """Refuse what can be none of these on a cluster.

    Raises:
        OptionError: it is a path, and not an absolute one.
    """
    seen = as_jobs_see(data, cluster)
    if cluster.is_local or seen.startswith("/") or as_input(seen, cluster).startswith(HUB_DATASET):
        return
    from skills_pipe.training.config.dataset_names import DATASETS, named_by

    if named_by(seen):
        return
    near = did_you_mean(data, [name for name, kind in DATASETS.items() if "data_path" in kind.keys])
    fix = near or "write it as jobs see it, or as organisation/name for a data set on the Hugging Face hub"
    raise OptionError(f"{data} is not an absolute path", where=f"--{option}", fix=fix)
