"""What a cluster is asked before anything is submitted to it: one script for its login node, and its answers.

The script changes nothing. Each answer stands between two control characters that neither Slurm nor base64 write, so
that what a program prints cannot be taken for another answer.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from shlex import quote
from typing import Protocol

from skills_pipe.pipeline.checks.slurm_facts import SlurmFacts, read_facts
from skills_pipe.pipeline.site.along import Along
from skills_pipe.pipeline.transport.base import Answer, Transport

HEAD_BYTES = 1 << 16
"""How much of a file is looked at."""

_BASH = ("bash", "-s")
_RECORD, _FIELD = "\x1e", "\x1f"
_FUNCTIONS = r"""
ask() {
  name=$1; shift
  out=$(timeout "$seconds" "$@" 2>&1 </dev/null); code=$?
  printf '\036ask\037%s\037%s\037%s' "$name" "$code" "$out"
  return "$code"
}
look() {
  kind=missing
  [ -e "$1" ] && kind=other
  [ -f "$1" ] && kind=file
  [ -d "$1" ] && kind=folder
  at=$1
  while [ ! -e "$at" ] && [ -n "$at" ]; do up=${at%/*}; [ "$up" != "$at" ] || up=; at=$up; done
  at=${at:-/}
  writable=no; [ -w "$at" ] && writable=yes
  readable=no; [ -r "$1" ] && readable=yes
  printf '\036look\037%s\037%s\037%s\037%s\037%s' "$1" "$kind" "$readable" "$at" "$writable"
}
head_of() {
  [ -f "$1" ] && [ -r "$1" ] && printf '\036head\037%s\037%s' "$1" "$(head -c BYTES -- "$1" | base64 | tr -d '\n')"
}
""".replace("BYTES", str(HEAD_BYTES))

_SLURM = r"""
ask enforce sh -c 'scontrol show config | grep -i "^AccountingStorageEnforce"'
ask partitions scontrol --all --oneliner show partition
ask queue squeue -h -r -u "$(id -un)" -o '%q|%a'
if ask associations sacctmgr -nP show assoc "user=$(id -un)" format=Account,Partition,QOS,MaxSubmitJobs,DefaultQOS; then
  ask qos sacctmgr -nP show qos format=Name,MaxSubmitPU,MaxSubmitPA
fi
"""


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What to ask.

    Attributes:
        slurm: whether to ask Slurm at all.
        why_not: why it is not asked, where somebody has to know.
        headers: name -> ``#SBATCH`` lines of a job that sbatch shall try, without submitting it.
        paths: files and folders to look at, as the cluster names them.
        heads: files of which to read the beginning.
        programs: name -> shell command that ends well, and prints something, where that program is.
        seconds: how long one program may take: those of Slurm wait for minutes on a controller that is down.
    """

    slurm: bool = False
    why_not: str | None = None
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    programs: Mapping[str, str] = field(default_factory=dict)
    seconds: int = 20

    def script(self) -> str:
        """For ``bash -s`` on the login node; all of it is read before any of it runs."""
        slurm = ["if ask nodes sinfo -a -h -o '%R|%a|%l|%D|%G|%T'; then", _SLURM.strip()]
        slurm += [f"ask {quote(f'test {name}')} {_trial(lines)}" for name, lines in self.headers.items()]
        slurm += ["fi"]
        lines = [
            *(slurm if self.slurm else []),
            *(f"look {quote(path)}" for path in self.paths),
            *(f"head_of {quote(path)}" for path in self.heads),
            *(f"ask {quote(f'which {name}')} sh -c {quote(test)}" for name, test in self.programs.items()),
            "true",
        ]
        return "\n".join([f"seconds={self.seconds}", _FUNCTIONS.strip(), "main() {", *lines, "}", "main", ""])


@dataclass(frozen=True, kw_only=True)
class Look:
    """A path on the cluster.

    Attributes:
        kind: ``file``, ``folder``, ``other`` or ``missing``.
        readable: by this user.
        nearest: the path itself, or the nearest folder above that exists.
        writable: whether this user may write to ``nearest``.
    """

    kind: str
    readable: bool
    nearest: str
    writable: bool

    @property
    def exists(self) -> bool:
        """Whether anything is there."""
        return self.kind != "missing"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a cluster has answered.

    Attributes:
        unreachable: why it has not; None when it has.
        slurm: what Slurm says; None if it was not asked, or does not answer.
        looks: path -> what is there.
        heads: path -> its first ``HEAD_BYTES`` bytes.
        programs: name -> what its test has printed, None if it is not there.
    """

    unreachable: str | None = None
    slurm: SlurmFacts | None = None
    looks: Mapping[str, Look] = field(default_factory=dict)
    heads: Mapping[str, bytes] = field(default_factory=dict)
    programs: Mapping[str, str | None] = field(default_factory=dict)


NOTHING = Answers(unreachable="nobody was asked")


def ask(questions: Questions, transport: Transport) -> Answers:
    """Ask a cluster, in one round trip."""
    return _parse(transport.run(_BASH, stdin=questions.script()), questions)


class Asking(Protocol):
    """Questions that are under way."""

    @property
    def along(self) -> Along | None:
        """What the next round trip to the cluster has to take along; None for questions that need none of it."""

    def answers(self) -> Answers:
        """What the cluster has said; waits for it.

        Raises:
            ClusterConfigError: nothing leads to it.
        """


@dataclass(frozen=True, kw_only=True)
class AskingNothing:
    """There is nothing to ask."""

    why: str | None
    along: Along | None = None

    def answers(self) -> Answers:
        """No answers, and why."""
        return Answers(unreachable=self.why)


class AskingMeanwhile:
    """A cluster answers while the launcher does something else."""

    along = None

    def __init__(self, questions: Questions, transport: Transport) -> None:
        """Ask a cluster, in one round trip."""
        self._answers = NOTHING
        self._problem: Exception | None = None
        # A daemon: a cluster that does not answer must not keep the launcher from ending.
        self._thread = threading.Thread(target=self._ask, args=(questions, transport), daemon=True)
        self._thread.start()

    def answers(self) -> Answers:
        """What the cluster has said; waits for it."""
        self._thread.join()
        if self._problem is not None:
            raise self._problem
        return self._answers

    def _ask(self, questions: Questions, transport: Transport) -> None:
        try:
            self._answers = ask(questions, transport)
        except Exception as problem:  # whoever waits for the answers gets it
            self._problem = problem


class AskingAlong:
    """A cluster is asked in a round trip that is made anyway; in one of its own if there is none before the answers."""

    def __init__(self, questions: Questions, transport: Transport) -> None:
        """Ask nothing yet."""
        self.along = Along(argv=_BASH, stdin=questions.script())
        self._questions = questions
        self._transport = transport

    def answers(self) -> Answers:
        """What the cluster has said."""
        return self._answers

    @cached_property
    def _answers(self) -> Answers:
        answer = self.along.answer or self._transport.run(self.along.argv, stdin=self.along.stdin)
        return _parse(answer, self._questions)


def _parse(answer: Answer, questions: Questions) -> Answers:
    if answer.ok:
        return read_answers(answer.out, questions)
    reason = (answer.err or answer.out).strip().splitlines()
    return Answers(unreachable=reason[-1] if reason else f"bash ended with {answer.code}")


def read_answers(text: str, questions: Questions) -> Answers:
    """What the script has printed; whatever a login shell prints before it is skipped."""
    asked: dict[str, tuple[int, str]] = {}
    looks: dict[str, Look] = {}
    heads: dict[str, bytes] = {}
    for record in text.split(_RECORD)[1:]:
        kind, *fields = record.split(_FIELD)
        if kind == "ask":
            asked[fields[0]] = (int(fields[1]), fields[2])
        elif kind == "look":
            path, what, readable, nearest, writable = fields
            looks[path] = Look(kind=what, readable=readable == "yes", nearest=nearest, writable=writable == "yes")
        elif kind == "head":
            heads[fields[0]] = base64.b64decode(fields[1])
    unreachable = _no_slurm(asked, questions.seconds) if questions.slurm else questions.why_not
    return Answers(
        unreachable=unreachable,
        slurm=read_facts(asked) if questions.slurm and unreachable is None else None,
        looks=looks,
        heads=heads,
        programs={
            name.removeprefix("which "): out.strip() if code == 0 else None
            for name, (code, out) in asked.items()
            if name.startswith("which ")
        },
    )


def _no_slurm(asked: Mapping[str, tuple[int, str]], seconds: int) -> str | None:
    code, out = asked.get("nodes", (127, ""))
    if code == 0:
        return None
    lines = out.strip().splitlines()
    return lines[-1] if lines and code != 124 else f"sinfo says nothing within {seconds} s"


def _trial(lines: Sequence[str]) -> str:
    """A command that lets sbatch judge a header."""
    script = "\n".join(["#!/bin/bash", *lines, "true", ""])
    return f"bash -c {quote(f'printf %s {quote(script)} | sbatch --test-only')}"
