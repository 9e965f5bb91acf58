"""``ns data preview``: see what is trained of some rows, token by token."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.data import DataOptions, Look, Program, check_trainer_keys, plan_of
from skills_pipe.pipeline.console.command import Command
from skills_pipe.pipeline.options.declaration import option, switch
from skills_pipe.pipeline.options.groups import EXPNAME_HELP
from skills_pipe.pipeline.plan import Plan

PROGRAM = "skills_pipe.training.data.preview"


@dataclass(frozen=True, kw_only=True)
class DataPreviewOptions(DataOptions):
    """What to show."""

    num_samples: int = option(3, help="rows to show")
    first: int = option(0, help="rows to pass over")
    seed: int | None = option(None, help="show rows chosen at random by this seed")
    validation: bool = switch(help="show rows of the validation data")
    ids: bool = switch(help="print the token ids too")
    html: str | None = option(None, metavar="PATH", help="also write one page for a browser, which needs nothing else")
    expname: str = option("data-preview", help=EXPNAME_HELP)


def plan(options: DataPreviewOptions, extras: tuple[str, ...], cluster: ClusterConfig) -> Plan:
    """One job that prints."""
    flags = [f"--num_samples={options.num_samples}"]
    flags += [f"--first={options.first}"] if options.first else []
    flags += [f"--seed={options.seed}"] if options.seed is not None else []
    flags += [f"--{name}" for name in ("validation", "ids") if getattr(options, name)]
    flags += [f"--html={cluster.absolute(options.html)}"] if options.html else []
    program = Program(name="preview", module=PROGRAM, flags=tuple(flags))
    return plan_of(program, options, extras, cluster, options.expname)


COMMAND = Command(
    options=DataPreviewOptions,
    run=Look(plan=plan, checks={"keys of the trainer": check_trainer_keys}, shows=lambda job: True, words=()),
    takes_extras=True,
)
