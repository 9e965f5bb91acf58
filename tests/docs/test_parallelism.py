"""The page about parallelism names the families that the configuration accepts."""

from __future__ import annotations

import re

import pytest

from skills_pipe.training.config import parallel
from tests.docs.documents import ROOT


@pytest.mark.parametrize("kind", ["tensor", "context", "expert"])
def test_families_are_those_that_are_accepted(kind):
    page = (ROOT / "docs" / "parallelism.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| {kind} \| (.*) \|$", page, re.MULTILINE)
    assert row is not None
    assert tuple(re.findall(r"`(\w+)`", row[1])) == getattr(parallel, f"{kind.upper()}_PARALLEL_FAMILIES")
