"""Which stages of a plan have to run: what is finished is skipped, what is half-done goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.names import MANIFEST
from skills_pipe.errors import CheckpointError
from skills_pipe.pipeline.decisions.changes import changes_between
from skills_pipe.pipeline.plan import EdgeKind, Plan, Stage
from skills_pipe.pipeline.records.owner import OutputOwner
from skills_pipe.pipeline.site.site import Facts


class Action(str, Enum):
    """What happens to a stage."""

    RUN = "run"
    """There is no output yet."""
    CONTINUE = "continue"
    """The output is half-done: the program goes on from there."""
    RESTART = "restart"
    """The output there is set aside, and the stage runs anew."""
    SKIP = "skip"
    """The output is finished."""
    NOT_NEEDED = "not needed"
    """The output is missing, but everything that is made from it is finished."""
    REFUSE = "refuse"
    """Something else made the output there; the user has to say what to do."""

    @property
    def runs(self) -> bool:
        """Whether jobs of the stage start."""
        return self in (Action.RUN, Action.CONTINUE, Action.RESTART)


class OnChange(str, Enum):
    """What to do with an output that was made with other options or inputs."""

    CONTINUE = "continue"
    """Go on from it with the new ones."""
    RESTART = "restart"
    """Set it aside and begin anew."""


_ANSWERS = {OnChange.CONTINUE: Action.CONTINUE, OnChange.RESTART: Action.RESTART}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What happens to a stage, and why.

    Attributes:
        reason: a few words, for people.
        changes: in what the output there differs, as ``--backend: 1 -> 2``.
    """

    stage: str
    action: Action
    reason: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judge:
    """How outputs on disk are judged.

    Attributes:
        locate: container path -> path on the cluster.
        facts: path on the cluster -> what is known of an output there (``Want.OUTPUT``).
        rerun: run every stage, finished or not.
        on_change: what to do with outputs of another identity; None refuses.
    """

    locate: Callable[[str], str]
    facts: Mapping[str, Facts]
    rerun: bool = False
    on_change: OnChange | None = None

    def decide(self, plan: Plan, identities: Mapping[str, Identity]) -> tuple[Decision, ...]:
        """One decision for each stage, in the order of the plan."""
        alone = {stage.name: self._look_at(stage, identities[stage.name]) for stage in plan.stages}
        downstream = _downstream(plan)
        decided: dict[str, Decision] = {}
        for stage in reversed(plan.stages):
            decision = alone[stage.name]
            users = downstream[stage.name]
            if decision.action is not Action.SKIP and users and not any(_wants(decided[user]) for user in users):
                decision = Decision(
                    stage=stage.name,
                    action=Action.NOT_NEEDED,
                    reason="its output is not there, but what is made from it is finished",
                )
            decided[stage.name] = decision
        for stage in plan.stages:
            told = _only_told(plan, stage)
            if told and not any(_wants(decided[name]) for name in told):
                decided[stage.name] = Decision(
                    stage=stage.name, action=Action.NOT_NEEDED, reason="there is nothing to tell about"
                )
        return tuple(decided[stage.name] for stage in plan.stages)

    def _look_at(self, stage: Stage, identity: Identity) -> Decision:
        """The decision for a stage by its own output."""
        if stage.output is None:
            return Decision(stage=stage.name, action=Action.RUN, reason="always runs")
        output = self.locate(stage.output)
        facts = self.facts[output]
        if self.rerun:
            action = Action.RESTART if facts.exists else Action.RUN
            return Decision(stage=stage.name, action=action, reason="--rerun")
        if not facts.exists or facts.empty:
            return Decision(stage=stage.name, action=Action.RUN, reason="no output yet")
        if facts.manifest is None:
            return self._look_at_half_done(stage, output, identity)
        try:
            sealed = manifest.parse(facts.manifest, Path(output, MANIFEST))
        except CheckpointError as error:
            return self._changed(stage, (), str(error))
        if sealed.identity is None:
            return self._changed(stage, (), f"{output} was not made by a run")
        if sealed.identity.digest != identity.digest:
            owner = self._owner(output)
            if owner is not None and owner.identity.digest == identity.digest:
                # An earlier run was told to go on from what is there, and was stopped before it had done so.
                return Decision(stage=stage.name, action=Action.CONTINUE, reason=f"half-done: {output}")
            return self._changed(stage, changes_between(sealed.identity, identity), f"{output} was made otherwise")
        if facts.damage:
            return Decision(stage=stage.name, action=Action.RESTART, reason=f"damaged: {facts.damage[0]}")
        return Decision(stage=stage.name, action=Action.SKIP, reason=f"finished: {output}")

    def _look_at_half_done(self, stage: Stage, output: str, identity: Identity) -> Decision:
        owner = self._owner(output)
        if owner is None:
            return self._changed(stage, (), f"{output} exists, and nothing tells what made it")
        if owner.identity.digest != identity.digest:
            return self._changed(stage, changes_between(owner.identity, identity), f"{output} was begun otherwise")
        return Decision(stage=stage.name, action=Action.CONTINUE, reason=f"half-done: {output}")

    def _owner(self, output: str) -> OutputOwner | None:
        text = self.facts[output].owner
        return None if text is None else OutputOwner.parse(text, output)

    def _changed(self, stage: Stage, changes: tuple[str, ...], reason: str) -> Decision:
        action = _ANSWERS[self.on_change] if self.on_change else Action.REFUSE
        return Decision(stage=stage.name, action=action, reason=reason, changes=changes)


def _wants(decision: Decision) -> bool:
    return decision.action.runs or decision.action is Action.REFUSE


def _only_told(plan: Plan, stage: Stage) -> set[str]:
    """The stages about whose end ``stage`` tells, when it does nothing else."""
    edges = [edge for job in plan.jobs_of(stage.name) for edge in job.edges]
    if any(edge.kind is not EdgeKind.ENDED for edge in edges):
        return set()
    return {plan.job(edge.upstream).stage for edge in edges}


def _downstream(plan: Plan) -> dict[str, set[str]]:
    """Stage -> stages that read its output or wait for its jobs."""
    stage_of = {job.name: job.stage for job in plan.jobs}
    downstream: dict[str, set[str]] = {stage.name: set() for stage in plan.stages}
    for stage in plan.stages:
        for upstream in stage.upstream:
            downstream[upstream].add(stage.name)
    for job in plan.jobs:
        for edge in job.edges:
            if stage_of[edge.upstream] != job.stage and edge.kind is not EdgeKind.ENDED:
                downstream[stage_of[edge.upstream]].add(job.stage)
    return downstream
