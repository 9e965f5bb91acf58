"""Edges as sbatch is told of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.plan import Edge, EdgeKind, Job
from skills_pipe.pipeline.scripts.dependency import dependency
from tests.pipeline.programs import job, shell

K = EdgeKind
IDS = {"a": "1", "b": "2"}


def after(*edges: tuple[str, EdgeKind]) -> Job:
    plain = job("x", shell("true"), Path("/tmp"))
    return replace(plain, edges=tuple(Edge(upstream=name, kind=kind) for name, kind in edges))


@pytest.mark.parametrize(
    ("edges", "text", "text_with_run_after"),
    [
        ((), None, "afterok:9"),
        ((("a", K.SUCCEEDED),), "afterok:1", "afterok:1"),
        ((("a", K.UNFINISHED),), "afternotok:1", "afterok:9,afternotok:1"),
        ((("a", K.ANY_SUCCEEDED), ("b", K.ANY_SUCCEEDED)), "afterok:1?afterok:2", "afterok:1?afterok:2"),
        ((("a", K.ENDED), ("b", K.ENDED)), "afterany:1,afterany:2", "afterany:1,afterany:2"),
    ],
)
def test_each_kind_of_edge_has_its_word(edges, text, text_with_run_after):
    assert dependency(after(*edges), IDS) == text
    assert dependency(after(*edges), IDS, ("9",)) == text_with_run_after


@pytest.mark.parametrize("other", [K.SUCCEEDED, K.UNFINISHED, K.ENDED])
def test_an_any_of_is_never_mixed_with_anything(other):
    mixed = after(("a", K.ANY_SUCCEEDED))
    object.__setattr__(mixed, "edges", (*mixed.edges, Edge(upstream="b", kind=other)))
    with pytest.raises(PlanError, match="mixes an any-of edge with others"):
        dependency(mixed, IDS)
