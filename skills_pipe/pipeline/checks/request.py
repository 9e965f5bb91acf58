"""What the checks of one command may look at."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from skills_pipe.pipeline.checks.asking import CONFIG
from skills_pipe.pipeline.checks.finding import Checked, Finding
from skills_pipe.pipeline.checks.gpu import Gpu
from skills_pipe.pipeline.checks.hub_inputs import cache_folders, hub_names
from skills_pipe.pipeline.checks.questions import NOTHING, Answers, Look
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.cluster.paths import PathMap
from skills_pipe.pipeline.options.groups import JobOptions
from skills_pipe.pipeline.plan import Job, Plan

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.hub import HubModel

OptionsT = TypeVar("OptionsT", bound=JobOptions)


@dataclass(frozen=True, kw_only=True)
class Request(Generic[OptionsT]):
    """What a check of one command may look at.

    Attributes:
        extras: words for the inner program.
        missing: inputs of the plan that do not exist, and that no earlier run promises.
        settled: stages that need not run any more: what they make is finished, or not needed.
        asked: tells what the cluster says, once it has said it.
        hub: model or data set on the Hugging Face hub -> what the hub says.
    """

    options: OptionsT
    extras: tuple[str, ...]
    cluster: ClusterConfig
    plan: Plan
    missing: frozenset[str] = frozenset()
    settled: frozenset[str] = frozenset()
    asked: Callable[[], Answers] = lambda: NOTHING
    hub: Mapping[str, HubModel] = field(default_factory=dict)

    @property
    def answers(self) -> Answers:
        """What the cluster says; waits for it."""
        return self.asked()

    def model_config(self, name: str) -> Mapping[str, Any] | None:
        """The ``config.json`` of a model, by its path as jobs see it or its id; None if it could not be read."""
        text = self.head(f"{name}{CONFIG}") or (self.hub[name].config if name in self.hub else None)
        try:
            config = json.loads(text) if text else None
        except ValueError:
            return None
        return config if isinstance(config, Mapping) else None

    def gpu(self, job: Job) -> Gpu:
        """What is known about the GPUs that a job gets."""
        facts = self.answers.slurm
        names = (job.resources.partition or facts.default_partition or "").split(",") if facts else []
        known = [facts.partitions[name] for name in names if name in facts.partitions] if facts else []
        types = {kind for partition in known for kind in partition.gpu_types}
        return Gpu(type=next(iter(types)) if len(types) == 1 else None, gib=self.cluster.gpu_memory_gb)

    def head(self, path: str) -> bytes | None:
        """How a file begins, by its path as jobs see it; None if it could not be read."""
        place = PathMap.of(self.cluster).to_cluster(path)
        return self.answers.heads.get(place) if place is not None else None

    def look(self, path: str) -> Look | None:
        """What is at a path as jobs see it; None if nobody has looked."""
        place = PathMap.of(self.cluster).to_cluster(path)
        return self.answers.looks.get(place) if place is not None else None

    def caches(self) -> Mapping[str, str]:
        """Models and data sets on the hub that the plan reads -> where the jobs keep them, as the cluster names it."""
        return cache_folders(self.cluster, hub_names(self.plan, self.cluster))


Check = Callable[[Request[OptionsT]], "Sequence[Finding] | Checked"]
"""A check of one command: findings, or more words about how it went."""
