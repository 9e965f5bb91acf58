"""Cases that show for one more layout, family or kind what others show: run by `make test-exhaustive`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_exhaustive(cases: Iterable[Any], always: Iterable[Any]) -> list[Any]:
    """The values of a parameter, of which only those in ``always`` are run each time."""
    kept = list(always)
    found = [case if case in kept else pytest.param(case, marks=pytest.mark.exhaustive) for case in cases]
    if sum(case in kept for case in found) != len(kept):
        raise ValueError(f"not all of {kept} are cases")
    return found
