"""What a plan makes one ask the cluster, and how the questions get there."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

from skills_pipe.pipeline.checks.files import paths_to_look_at
from skills_pipe.pipeline.checks.questions import Asking, AskingAlong, AskingMeanwhile, AskingNothing, Questions
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.cluster.paths import PathMap
from skills_pipe.pipeline.plan import Plan

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.trials import Trials

CONFIG = "/config.json"
"""In every model of transformers."""


def trials_of(plan: Plan, cluster: ClusterConfig) -> Trials | None:
    """What sbatch is to try; nothing where there is none."""
    if cluster.executor is not ExecutorKind.SLURM:
        return None
    # Imported here: there is no cluster in most dry runs.
    from skills_pipe.pipeline.checks.trials import Trials

    return Trials.of(plan, cluster)


def ask_cluster(plan: Plan, cluster: ClusterConfig, wanted: Questions) -> Asking:
    """Ask the cluster, in one round trip; also this machine, for what jobs read here."""
    slurm, why_not = cluster.executor is ExecutorKind.SLURM, None
    if slurm and cluster.ssh_tunnel is None and shutil.which("sinfo") is None:
        slurm, why_not = False, "sinfo is not installed here"
    heads = _heads(plan, cluster)
    # A name on the hub is no place.
    configs = [head for head in heads if head.endswith(CONFIG) and head.startswith("/")]
    folders = (part for config in configs for part in (config, config.removesuffix(CONFIG)))
    paths = (*wanted.paths, *folders, *(paths_to_look_at(plan, cluster) if slurm else ()))
    questions = replace(wanted, slurm=slurm, why_not=why_not, paths=paths, heads=heads)
    if not (slurm or questions.paths or questions.heads):
        return AskingNothing(why=why_not)
    # Imported here: the dry run of a command without such questions needs no processes.
    from skills_pipe.pipeline.transport.reach import is_behind_ssh, transport_of

    # A round trip through ssh takes longer than the questions, and longer than what could be done here meanwhile.
    kind = AskingAlong if is_behind_ssh(cluster) else AskingMeanwhile
    return kind(questions, transport_of(cluster))


def _heads(plan: Plan, cluster: ClusterConfig) -> tuple[str, ...]:
    """Files whose beginning tells something: rows of data, and the sizes of models."""
    paths = PathMap.of(cluster)
    inside = [path for stage in plan.stages for path in stage.inputs if path.startswith("/") or cluster.is_local]
    files = [path if path.endswith((".json", ".jsonl")) else f"{path}{CONFIG}" for path in inside]
    places = [paths.to_cluster(path) for path in files]
    return tuple(dict.fromkeys(place for place in places if place is not None))
