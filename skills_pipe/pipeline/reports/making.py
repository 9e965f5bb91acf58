"""What a run was made of: its command, its code, and for each stage identity, inputs, output and jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skills_pipe.artifacts.identity import Identity
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.code.record import read_record
from skills_pipe.pipeline.decisions.changes import changes_between
from skills_pipe.pipeline.records.command_line import CommandLine, read_command_line
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.reports.lineage import Lineage, Origin
from skills_pipe.pipeline.reports.report import RunReport, StageReport
from skills_pipe.pipeline.scripts.place import locator


@dataclass(frozen=True, kw_only=True)
class StageMaking:
    """One stage.

    Attributes:
        identity: what its output is, or was to be, made of; None where it was not recorded.
        output: None for a stage that makes nothing that is kept.
        inputs: what it reads, outputs of other stages of the run too.
    """

    report: StageReport
    identity: Identity | None
    output: Origin | None
    inputs: tuple[Origin, ...]

    @property
    def is_this_runs(self) -> bool:
        """Whether what lies at the output is what this stage makes."""
        made = self.output.identity if self.output else None
        return made is not None and self.identity is not None and made.digest == self.identity.digest


@dataclass(frozen=True, kw_only=True)
class RunMaking:
    """One run.

    Attributes:
        command: None where none was recorded.
        code: contents of ``code.json``, None where the installed package was used.
    """

    report: RunReport
    command: CommandLine | None
    code: Mapping[str, Any] | None
    stages: tuple[StageMaking, ...]


def making_of(run: Run, report: RunReport, cluster: ClusterConfig) -> RunMaking:
    """What a run was made of."""
    plan = run.plan
    lineage = Lineage(run.site, locator(cluster, plan))
    identities = {stage.name: run.identity(stage.name) for stage in plan.stages}
    inputs = lineage.trace(
        {name: identity.fields.get("inputs", {}) for name, identity in identities.items() if identity}
    )
    return RunMaking(
        report=report,
        command=read_command_line(run.folder),
        code=read_record(run.folder),
        stages=tuple(
            StageMaking(
                report=told,
                identity=identities[stage.name],
                output=lineage.output(stage.output) if stage.output else None,
                inputs=inputs.get(stage.name, ()),
            )
            for stage, told in zip(plan.stages, report.stages, strict=True)
        ),
    )


def differences(one: RunMaking, other: RunMaking) -> dict[str, list[str]]:
    """What differs between two runs: ``code``, and for each stage options and inputs, as people type."""
    found: dict[str, list[str]] = {}
    codes = [making.code["hash"][:12] if making.code else "installed package" for making in (one, other)]
    if codes[0] != codes[1]:
        found["code"] = [f"{codes[0]} -> {codes[1]}"]
    others = {stage.report.name: stage for stage in other.stages}
    names = {stage.report.name for stage in one.stages}
    for stage in one.stages:
        match = others.get(stage.report.name)
        if match is None:
            found[stage.report.name] = ["only in the first"]
        elif stage.identity and match.identity and (changes := changes_between(stage.identity, match.identity)):
            found[stage.report.name] = list(changes)
    found |= {name: ["only in the second"] for name in others if name not in names}
    return found
