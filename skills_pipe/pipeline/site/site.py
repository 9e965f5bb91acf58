"""The files of a cluster: facts about them, and the few changes that a launcher makes itself."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from skills_pipe.errors import ClusterConfigError, StoreError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.transport.base import Answer, Transport
from skills_pipe.pipeline.transport.reach import is_behind_ssh, transport_of

_AGENT = ("files", "looking", "outputs", "records", "answer")
"""Files of the folder ``agent``, each before those that import it."""


class Want(str, Enum):
    """What somebody wants to know of a path, beside whether it is there."""

    OUTPUT = "output"
    """Who makes it, whether it is whole: ``owner``, ``manifest``, ``damage``, ``empty``."""
    FINGERPRINT = "fingerprint"
    """What is in it: ``fingerprint``; glob patterns may be asked for."""
    PLACE = "place"
    """Whether something can be made there: ``existing``, ``writable``, ``free_bytes``."""
    HEAD = "head"
    """How it begins: ``head``."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a path on the cluster.

    Attributes:
        kind: ``file``, ``folder``, or None: nothing is there.
        size: bytes of a file.
        empty: whether nothing is in the folder.
        owner, manifest: text of the record beside an output, and of its manifest.
        damage: files that are not as large as the manifest says, one line each.
        fingerprint: see ``decisions.fingerprint``.
        existing: the path, or the nearest folder above it that is there.
        writable: whether files can be made in ``existing``.
        free_bytes: room on its file system.
        head: the first 4096 bytes as text.
        error: why something could not be found out.
    """

    kind: str | None = None
    size: int = 0
    empty: bool = False
    owner: str | None = None
    manifest: str | None = None
    damage: tuple[str, ...] = ()
    fingerprint: str | None = None
    existing: str = ""
    writable: bool = False
    free_bytes: int = 0
    head: str | None = None
    error: str | None = None

    @property
    def exists(self) -> bool:
        """Whether something is there."""
        return self.kind is not None


@dataclass(frozen=True, kw_only=True)
class Tail:
    """A part of a file: ``data`` from ``offset``; ``size`` is that of the whole file, None when there is none."""

    size: int | None
    offset: int
    data: bytes


class Agent(Protocol):
    """Somebody who does actions where the files are; see ``agent.answer``."""

    def answer(self, actions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The answers; fewer than actions where one could not be done."""


@dataclass(frozen=True)
class Site:
    """The files of a cluster."""

    agent: Agent

    def ask(self, *actions: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Do all of ``actions`` in one round trip.

        An action that is refused ends the list: its answer has the key ``refused``, those after it have none.

        Raises:
            StoreError: a file could not be read or written.
        """
        answers = self.agent.answer(actions)
        if answers and "error" in answers[-1]:
            raise _impossible(actions[len(answers) - 1], answers[-1])
        return answers

    def facts(self, wanted: Mapping[str, Iterable[Want]] | Iterable[str]) -> dict[str, Facts]:
        """Facts about absolute paths; without wishes only whether they are there and how large they are."""
        questions = wanted if isinstance(wanted, Mapping) else dict.fromkeys(wanted, ())
        return parse_facts(self.ask(look(questions))[0])

    def read_tail(self, path: str, offset: int, *, limit: int = 1 << 20) -> Tail:
        """What a file holds from ``offset`` on, at most ``limit`` bytes; a negative offset counts from its end."""
        return parse_tail(self.ask(tail(path, offset, limit))[0])

    def read_tails(self, offsets: Mapping[str, int], *, limit: int = 1 << 20) -> dict[str, Tail]:
        """The same of several files in one round trip."""
        answers = self.ask(*(tail(path, offset, limit) for path, offset in offsets.items()))
        return dict(zip(offsets, map(parse_tail, answers), strict=True))


def site_of(cluster: ClusterConfig) -> Site:
    """The files of ``cluster``: those here, or those that its login node sees."""
    return Site(AgentThere(transport_of(cluster))) if is_behind_ssh(cluster) else HERE


def look(questions: Mapping[str, Iterable[Want]]) -> dict[str, Any]:
    """The action that finds facts; :func:`parse_facts` reads its answer."""
    return {"do": "look", "questions": {path: [want.value for want in wants] for path, wants in questions.items()}}


def parse_facts(answer: Mapping[str, Any]) -> dict[str, Facts]:
    """The answer to :func:`look`."""
    return {
        path: Facts(**{**facts, "damage": tuple(facts.get("damage", ()))}) for path, facts in answer["facts"].items()
    }


def tail(path: str, offset: int, limit: int) -> dict[str, Any]:
    """The action that reads a part of a file; :func:`parse_tail` reads its answer."""
    return {"do": "tail", "path": path, "offset": offset, "limit": limit}


def parse_tail(answer: Mapping[str, Any]) -> Tail:
    """The answer to :func:`tail`."""
    return Tail(size=answer["size"], offset=answer["offset"], data=base64.b64decode(answer["data"]))


def program(argv: Sequence[str], stdin: str) -> dict[str, Any]:
    """The action that runs a program; :func:`parse_program` reads its answer."""
    return {"do": "program", "argv": list(argv), "stdin": stdin}


def parse_program(answer: Mapping[str, Any]) -> Answer:
    """The answer to :func:`program`."""
    return Answer(code=answer["code"], out=answer["out"], err=answer["err"])


class AgentHere:
    """The agent as a part of this process."""

    def answer(self, actions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Do them here."""
        from skills_pipe.pipeline.site.agent.answer import answer

        return answer([dict(action) for action in actions])


@dataclass(frozen=True)
class AgentThere:
    """The agent as a program of the login node: it is sent along with what it is asked."""

    transport: Transport

    def answer(self, actions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Do them there.

        Raises:
            ClusterConfigError: the login node has no python3.
        """
        ended = self.transport.run(["python3", "-I", "-"], stdin=_program(json.dumps(list(actions))))
        if ended.code == 127:
            fix = "make it available with ssh_tunnel.pre_command, for example `module load python`"
            raise ClusterConfigError("there is no python3 on the login node", where="ssh_tunnel", fix=fix)
        if not ended.ok:
            raise RuntimeError(f"the agent on the login node ended with {ended.code}: {ended.err}")
        answers: list[dict[str, Any]] = json.loads(ended.out)
        return answers


def _impossible(action: Mapping[str, Any], answer: Mapping[str, Any]) -> StoreError:
    if action["do"] == "make_run":
        return StoreError(
            f"the records of runs cannot be written ({answer['error']})",
            where=answer["path"],
            fix="choose another folder with $SKILLS_PIPE_JOB_DIR, or job_dir of the cluster configuration",
        )
    fix = "choose another folder, or make room in it"
    return StoreError(f"{answer['path']} cannot be read or written ({answer['error']})", fix=fix)


HERE = Site(AgentHere())
"""The files of this machine."""


def _program(request: str) -> str:
    """Python source: the agent's modules under their names, then the call."""
    return (
        "import json, sys, types\n"
        f"for name, text in json.loads({_sources()!r}):\n"
        "    module = sys.modules[name] = types.ModuleType(name)\n"
        "    exec(compile(text, name, 'exec'), module.__dict__)\n"
        f"print(json.dumps(module.answer(json.loads({request!r}))))\n"
    )


@cache
def _sources() -> str:
    folder = Path(__file__).with_name("agent")
    texts = [(f"{__package__}.agent.{name}", (folder / f"{name}.py").read_text(encoding="utf-8")) for name in _AGENT]
    return json.dumps(texts)
