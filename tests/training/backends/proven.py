"""Which families are compared with one process on which layouts, as the tests themselves are parametrised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Any

from skills_pipe.training.config.families import ARCHITECTURES
from tests.training.backends import test_context, test_eight_ranks, test_experts, test_families, test_layouts


def proven() -> Mapping[str, tuple[str, ...]]:
    """The families that are tried on each layout, in the order of :data:`ARCHITECTURES`; layouts as tests name them."""
    found: dict[str, set[str]] = {}
    for test in (
        test_layouts.test_two_steps_are_those_of_one_process,
        test_layouts.test_two_steps_that_two_ranks_make_quickly,
        test_families.test_two_steps_are_those_of_one_process,
        test_context.test_two_steps_are_those_of_one_process,
        test_experts.test_two_steps_on_two_ranks_are_those_of_one_process,
        test_experts.test_two_steps_are_those_of_one_process,
        test_eight_ranks.test_two_steps_are_those_of_one_process,
    ):
        for values in parameters(test):
            found.setdefault(values["layout"], set()).add(values["family"])
    for values in parameters(test_context.test_two_ranks_share_rows_of_any_kind):
        found.setdefault("cp2", set()).add(values["family"])
    return {layout: tuple(sorted(families, key=ARCHITECTURES.index)) for layout, families in found.items()}


def parameters(test: Callable[..., Any]) -> Iterator[dict[str, Any]]:
    """What a test is called with, by the names of its ``parametrize`` marks; also where that is exhaustive."""
    marks = [mark.args for mark in test.pytestmark if mark.name == "parametrize"]
    for row in product(*(values for _, values in marks)):
        called: dict[str, Any] = {}
        for (names, _), value in zip(marks, row, strict=True):
            if isinstance(names, str):
                called[names] = value
            else:
                called.update(zip(names, getattr(value, "values", value), strict=True))
        yield called


def table() -> str:
    """The same in Markdown: layouts of the same families in one row."""
    together: dict[tuple[str, ...], list[str]] = {}
    for layout, families in proven().items():
        together.setdefault(families, []).append(layout)
    rows = [f"| {'; '.join(layouts)} | {_named(families)} |" for families, layouts in together.items()]
    return "\n".join(["| layout | families |", "| --- | --- |", *rows])


def _named(families: tuple[str, ...]) -> str:
    return "all" if families == ARCHITECTURES else ", ".join(f"`{family}`" for family in families)


if __name__ == "__main__":
    print(table())
