"""Whether training can get the data and models that it reads from the Hugging Face hub, where its jobs run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.checks.finding import Checked, Finding, error
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.sft.checks.trainer import config_of
from skills_pipe.pipeline.decisions.fingerprint import HUB_DATASET

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions

_OFFLINE = "HF_HUB_OFFLINE"
_YES = ("1", "true", "yes", "on")


def check_downloads(request: Request[SftOptions]) -> Checked:
    """What jobs would have to download: an error where they may not, else good to know."""
    from skills_pipe.pipeline.checks.hub import shown

    subject = "downloads"
    places = {name: place for name, place in request.caches().items() if name not in _kept_elsewhere(request)}
    looks = request.answers.looks
    absent = {name: place for name, place in places.items() if place in looks and not looks[place].exists}
    where = _offline(request.cluster)
    if where is not None:
        return Checked(subject=subject, findings=tuple(_refused(absent, where)))
    data = [shown(name) for name in absent if name.startswith(HUB_DATASET)]
    note = f"the first job downloads {', '.join(data)}: on a cluster without a connection it would fail"
    return Checked(subject=subject, note=note if data and not request.cluster.is_local else "", told=True)


def _kept_elsewhere(request: Request[SftOptions]) -> set[str]:
    """Data sets whose downloads lie in a folder of their own."""
    config = config_of(request)
    datasets = (*config.data.train, *config.data.validation) if config else ()
    return {f"{HUB_DATASET}{dataset.data_path}" for dataset in datasets if dataset.download_dir}


def _offline(cluster: ClusterConfig) -> str | None:
    """What says that jobs may not ask the hub; None when they may."""
    try:
        variables = cluster.environment()
    except ClusterConfigError:
        return None  # told by the checks of the configuration
    if variables.get(_OFFLINE, "").lower() in _YES:
        return f"env_vars of cluster {cluster.name!r}" if not cluster.is_local else _OFFLINE
    return _OFFLINE if cluster.is_local and os.environ.get(_OFFLINE, "").lower() in _YES else None


def _refused(absent: dict[str, str], where: str) -> Iterator[Finding]:
    from skills_pipe.pipeline.checks.hub import shown

    for name, place in absent.items():
        kind, flag = ("data set", " --repo-type dataset") if name.startswith(HUB_DATASET) else ("model", "")
        home = place.rpartition("/hub/")[0]
        fix = f"where there is a connection: HF_HOME={home} hf download{flag} {shown(name)}"
        what = f"the {kind} {shown(name)} is not in the cache of the jobs, and {_OFFLINE} is set for them"
        yield error(what, where=where, fix=fix)
