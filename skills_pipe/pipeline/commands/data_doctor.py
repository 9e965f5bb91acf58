"""``ns data doctor``: find out what is wrong with training data, and what it will cost."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.data import DataOptions, Look, Program, check_trainer_keys, plan_of
from skills_pipe.pipeline.console.command import Command
from skills_pipe.pipeline.options.declaration import option, switch
from skills_pipe.pipeline.options.groups import EXPNAME_HELP
from skills_pipe.pipeline.plan import Plan

PROGRAM = "skills_pipe.training.data.doctor"


@dataclass(frozen=True, kw_only=True)
class DataDoctorOptions(DataOptions):
    """What to examine."""

    max_rows: int = option(
        10_000, help="rows to read of training and of validation data, spread over those that have more; 0: all"
    )
    lengths: tuple[int, ...] = option(
        (), separator=",", metavar="N,N,...", help="limits of the length to plan with, in place of the usual ones"
    )
    json: bool = switch(help="print JSON, and nothing else")
    png: str | None = option(None, metavar="PATH", help="also write the histogram of the lengths as a picture")
    expname: str = option("data-doctor", help=EXPNAME_HELP)


def plan(options: DataDoctorOptions, extras: tuple[str, ...], cluster: ClusterConfig) -> Plan:
    """One job that prints; it fails where a finding is an error."""
    flags = [f"--max_rows={options.max_rows}"]
    flags += [f"--lengths={','.join(map(str, options.lengths))}"] if options.lengths else []
    flags += ["--json"] if options.json else []
    flags += [f"--png={cluster.absolute(options.png)}"] if options.png else []
    program = Program(name="doctor", module=PROGRAM, flags=tuple(flags))
    return plan_of(program, options, extras, cluster, options.expname)


COMMAND = Command(
    options=DataDoctorOptions,
    run=Look(plan=plan, checks={"keys of the trainer": check_trainer_keys}, shows=lambda job: True, words=()),
    takes_extras=True,
)
