"""Models and data sets on the Hugging Face hub that a plan reads."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.checks.finding import Checked
from skills_pipe.pipeline.checks.questions import Look
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.cluster.paths import PathMap
from skills_pipe.pipeline.decisions.fingerprint import is_hub_id
from skills_pipe.pipeline.plan import Plan

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.hub import HubModel, HubQuestions


def ask_hub(plan: Plan, cluster: ClusterConfig) -> HubQuestions | None:
    """Ask the hub for what a plan reads and is not here."""
    names = hub_names(plan, cluster)
    if not names:
        return None
    # Imported here: most models are folders.
    from skills_pipe.pipeline.checks.hub import HubQuestions, offline

    if offline():
        return None
    return HubQuestions(names, token=_variables(cluster).get("HF_TOKEN"))


def hub_names(plan: Plan, cluster: ClusterConfig) -> list[str]:
    """Inputs of a plan that are names on the hub, each once."""
    inputs = dict.fromkeys(path for stage in plan.stages for path in stage.inputs)
    return [name for name in inputs if is_hub_id(name) and not (cluster.is_local and Path(name).exists())]


def check_hub_inputs(hub: Mapping[str, HubModel], cluster: ClusterConfig, looks: Mapping[str, Look]) -> Checked:
    """Whether jobs can read them: what the hub said, and what they have already."""
    from skills_pipe.pipeline.checks.hub import check_hub

    folders = cache_folders(cluster, hub)
    cached = frozenset(name for name, folder in folders.items() if folder in looks and looks[folder].exists)
    return check_hub(hub, cached=cached, token="HF_TOKEN" in _variables(cluster))


def cache_folders(cluster: ClusterConfig, names: Iterable[str]) -> dict[str, str]:
    """Model or data set -> where it is kept once it was downloaded, as the cluster names that folder."""
    names = list(names)
    if not names:
        return {}
    # Imported here: most models are folders.
    from skills_pipe.pipeline.checks.hub import cache_folder

    home = _variables(cluster).get("HF_HOME")
    if home is None and cluster.is_local:
        home = os.environ.get("HF_HOME") or str(Path("~/.cache/huggingface").expanduser())
    place = PathMap.of(cluster).to_cluster(home) if home else None
    return {name: f"{place}/hub/{cache_folder(name)}" for name in names} if place else {}


def caches(plan: Plan, cluster: ClusterConfig) -> tuple[str, ...]:
    """Where the jobs keep what a plan reads of the hub, as the cluster names it."""
    return tuple(cache_folders(cluster, hub_names(plan, cluster)).values())


def _variables(cluster: ClusterConfig) -> Mapping[str, str]:
    try:
        return cluster.environment()
    except ClusterConfigError:
        return {}  # told by the checks of the configuration
