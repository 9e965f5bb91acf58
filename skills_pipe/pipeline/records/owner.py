"""Who writes an output: one run at a time, on record beside the output even after a crash.

The record ``.owner-<name>.json`` is made when a stage is submitted. It names the run and the identity of the stage:
a half-done output without a manifest is told by it. It stays after the run; whether the run still lives is looked up.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from skills_pipe.artifacts.identity import Identity
from skills_pipe.artifacts.names import owner_path
from skills_pipe.errors import StoreError
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.site.along import Along
from skills_pipe.pipeline.site.site import Site

_SUBMISSION_SECONDS = 900


@dataclass(frozen=True, kw_only=True)
class OutputOwner:
    """The run that writes (or last wrote) an output.

    Attributes:
        run: folder of the run, as its cluster sees it.
        stage: name of the stage in its plan.
        claimed_by: the process that made this record; before a submission is recorded, only this tells that it lives.
        claimed_at: when, in Unix seconds by the clock of that process.
        identity: what the output is made of.
    """

    run: str
    stage: str
    claimed_by: ProcessId
    claimed_at: float
    identity: Identity

    def may_be_submitting(self, age: float) -> bool:
        """Whether the process that made this record may still be about to submit its run.

        Nobody here sees whether a process of another machine lives: it counts as dead after a quarter of an hour.

        Args:
            age: seconds since the record was made.
        """
        if self.claimed_by.is_here:
            return self.claimed_by.is_alive
        return age < _SUBMISSION_SECONDS

    @classmethod
    def parse(cls, text: str, output: str) -> OutputOwner:
        """Read back the record of ``output``.

        Raises:
            StoreError: it is damaged.
        """
        try:
            value = json.loads(text)
            return cls(
                run=value["run"],
                stage=value["stage"],
                claimed_by=ProcessId.from_json(value["claimed_by"]),
                claimed_at=value.get("claimed_at", 0.0),
                identity=Identity.from_json(value["identity"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            where = str(owner_path(Path(output)))
            raise StoreError(f"the record is damaged ({error})", where=where, fix="remove this file") from error

    def to_text(self) -> str:
        """The record."""
        value = {
            "run": self.run,
            "stage": self.stage,
            "claimed_by": self.claimed_by.to_json(),
            "claimed_at": self.claimed_at,
            "identity": self.identity.to_json(),
        }
        return json.dumps(value, indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a run wants to write.

    Attributes:
        run: its folder, which is made.
        owners: output -> its new owner.
        set_aside: what is renamed to ``old_<name>.<n>``, in this order: outputs that are made anew, and what lies
            beside them.
        along: runs in the same round trip, before anything is claimed.
    """

    run: str
    owners: Mapping[str, OutputOwner]
    set_aside: Sequence[str] = ()
    along: Along | None = None


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Outputs that a run may write from now on.

    Attributes:
        records: output -> text of the record beside it.
        replaced: output -> text of the record of a dead run that was there.
        moved: what was set aside: from where, to where.
        along: what went along, with its answer.
    """

    site: Site
    records: Mapping[str, str]
    replaced: Mapping[str, str]
    moved: Sequence[Sequence[str]]
    along: Along | None = None

    def undo(self) -> None:
        """Leave everything as it was before."""
        self.site.ask(
            {"do": "put_back", "moved": self.moved},
            {"do": "unclaim", "records": self.records, "replaced": self.replaced},
        )


def claim_outputs(
    site: Site, wish: Wish, *, is_live: Callable[[OutputOwner, float], bool], flag: str = ""
) -> Claim | None:
    """Make the folder of a run, and become the owner of all outputs; or neither.

    Args:
        is_live: whether the run of an older record, of this age in seconds, still works on the output.
        flag: what a command in a message has to end with: `` --cluster=slurm``.

    Returns:
        None when somebody else has just made the folder.

    Raises:
        StoreError: another run works on an output, or nothing can be written there.
    """
    records = {output: owner.to_text() for output, owner in wish.owners.items()}
    dead: dict[str, str] = {}
    interim: dict[str, str] = {}
    first = [{"do": "make_run", "folder": wish.run}, *([wish.along.action()] if wish.along else [])]
    try:
        while True:
            interim = _interim(wish, dead)
            answers = site.ask(
                *first,
                {"do": "claim", "records": records | interim, "dead": dead},
                {"do": "set_aside", "paths": list(wish.set_aside)},
                {"do": "claim", "records": {output: records[output] for output in interim}, "dead": interim},
            )
            if first and "refused" in answers[0]:
                return None
            if first and wish.along:
                wish.along.take(answers[1])
            claimed, *aside = answers[len(first) :]
            first = []
            if aside:
                for output, (text, _) in aside[1].get("taken", {}).items():
                    raise _in_use(output, OutputOwner.parse(text, output), flag)
                replaced, moved = claimed["replaced"], aside[0]["moved"]
                return Claim(site=site, records=records, replaced=replaced, moved=moved, along=wish.along)
            for output, (text, age) in claimed["taken"].items():
                other = OutputOwner.parse(text, output)
                if is_live(other, age):
                    raise _in_use(output, other, flag)
                dead[output] = text
    except StoreError:
        site.ask(
            {"do": "unmake_run", "folder": wish.run},
            {"do": "unclaim", "records": records | interim, "replaced": dead},
        )
        raise


def _interim(wish: Wish, dead: Mapping[str, str]) -> dict[str, str]:
    """Output that is set aside -> the record of its owner until it is: with the identity of what lies there.

    Were it that of the new one, a run that dies in between would leave the old output as a half-done new one.
    """
    return {
        output: replace(wish.owners[output], identity=_identity(output, dead.get(output))).to_text()
        for output in wish.set_aside
        if output in wish.owners
    }


def _identity(output: str, record: str | None) -> Identity:
    """Identity by a record; without one, none that any run has."""
    return OutputOwner.parse(record, output).identity if record else Identity.of(options={}, inputs={})


def _in_use(output: str, other: OutputOwner, flag: str) -> StoreError:
    run = "/".join(Path(other.run).parts[-2:])
    return StoreError(
        f"{output} is being written by stage {other.stage!r} of another run",
        where=other.run,
        fix=f"wait for it, or stop it with `ns cancel {run}{flag}`",
    )
