"""Questions to a cluster that are under way while the launcher does something else."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.checks.questions import AskingAlong, AskingMeanwhile, Questions, ask
from skills_pipe.pipeline.site.site import HERE
from skills_pipe.pipeline.transport.base import Answer
from skills_pipe.pipeline.transport.here import Here


@dataclass
class Waits:
    """A cluster that answers when it is told to."""

    may_answer: threading.Event = field(default_factory=threading.Event)

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "") -> Answer:
        if not self.may_answer.wait(timeout=60):
            raise TimeoutError("nobody went on while the cluster was asked")
        return Here().run(argv, stdin=stdin)


class Gone:
    def run(self, argv: Sequence[str], *, stdin: str | bytes = "") -> Answer:
        raise ClusterConfigError("no way to login: it does not answer")


def test_a_cluster_answers_while_something_else_is_done(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    cluster = Waits()
    asking = AskingMeanwhile(Questions(heads=(f"{tmp_path}/rows.jsonl",)), cluster)
    cluster.may_answer.set()  # were the cluster waited for, nobody would come here
    assert asking.answers().heads == {f"{tmp_path}/rows.jsonl": b"{}\n"}
    assert asking.answers() is asking.answers()


def test_what_stops_the_questions_stops_whoever_wants_the_answers():
    asking = AskingMeanwhile(Questions(), Gone())
    with pytest.raises(ClusterConfigError, match="it does not answer"):
        asking.answers()


@dataclass
class Counts:
    """A cluster that counts how often it is asked."""

    calls: int = 0

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "") -> Answer:
        self.calls += 1
        return Here().run(argv, stdin=stdin)


def test_questions_that_go_along_cost_no_round_trip_of_their_own(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    cluster = Counts()
    asking = AskingAlong(Questions(heads=(f"{tmp_path}/rows.jsonl",)), cluster)
    asking.along.take(HERE.ask(asking.along.action())[0])
    assert asking.answers().heads == {f"{tmp_path}/rows.jsonl": b"{}\n"}
    assert cluster.calls == 0


def test_questions_that_nobody_took_along_are_asked_once(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    cluster = Counts()
    asking = AskingAlong(Questions(heads=(f"{tmp_path}/rows.jsonl",)), cluster)
    assert asking.answers().heads == {f"{tmp_path}/rows.jsonl": b"{}\n"}
    assert asking.answers() is asking.answers() and cluster.calls == 1


def test_a_name_that_is_no_path_is_missing_like_any_other(tmp_path, monkeypatch):
    """It has no folder above it, whose name would be looked for without an end."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    looks = ask(Questions(paths=("organisation/model", "here/not", "here")), Here()).looks
    assert {path: look.kind for path, look in looks.items()} == {
        "organisation/model": "missing",
        "here/not": "missing",
        "here": "folder",
    }
    assert looks["here/not"].nearest == "here"
