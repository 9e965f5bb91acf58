"""The table of layouts and families in the documentation is what the tests compare; what is accepted is in it."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from skills_pipe.training.config.families import ARCHITECTURES
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.config.rules.parallel import unproven
from tests.docs.documents import ROOT
from tests.training.backends import test_context, test_eight_ranks, test_experts, test_layouts
from tests.training.backends.proven import proven, table

LAYOUTS = {
    **test_layouts.LAYOUTS,
    **test_context.LAYOUTS,
    **test_experts.LAYOUTS,
    **test_eight_ranks.LAYOUTS,
}
KINDS = ("tensor", "context", "expert")


def test_the_page_has_the_table():
    assert table() in (ROOT / "docs" / "parallelism.md").read_text(encoding="utf-8")


def test_every_layout_of_the_tests_is_in_it():
    assert set(proven()) == set(LAYOUTS)


def test_the_page_about_training_names_every_family_and_no_other():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    section = page.split("## Models\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.*?`) \| ", section, re.MULTILINE)

    assert [name for cell in cells[1:] for name in re.findall(r"`(\w+)`", cell)] == list(ARCHITECTURES)


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_parallelism_is_accepted_for_the_families_that_are_compared_on_it(family, kind):
    tried = [
        layout
        for layout, families in proven().items()
        if family in families and [each for each in KINDS if getattr(LAYOUTS[layout], each) > 1] == [kind]
    ]
    refused = unproven(family, Layout(**{kind: 2}))

    assert bool(tried) == (not refused)
    assert all("is proven exact for" in problem.what for problem in refused)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_any_two_kinds_that_are_accepted_for_a_family_are_compared_together(family):
    accepted = [kind for kind in KINDS if not unproven(family, Layout(**{kind: 2}))]
    compared = [LAYOUTS[layout] for layout, families in proven().items() if family in families]

    for one, other in combinations(("replicate", "shard", *accepted), 2):
        assert any(getattr(layout, one) > 1 and getattr(layout, other) > 1 for layout in compared), (one, other)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_family_is_compared_on_shards_and_on_copies(family):
    assert all(family in proven()[layout] for layout in ("dp2", "replicate2 x shard2"))
