"""Recipes and rows for the tests of what looks at data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from skills_pipe.training.data.chunk import DataSettings, Recipe
from skills_pipe.training.data.inspection.opening import OpenedData
from skills_pipe.training.data.inspection.selection import Selection, select
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.template import resolve_template
from tests.training.tiny import tiny_tokenizer, write_jsonl


def chat(*contents: str, system: str | None = None) -> dict[str, Any]:
    """A row of turns of the user and the assistant."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *messages]}


def recipe(*, template: str | None = "default", max_length: int = 200, **settings: Any) -> Recipe:
    """A recipe with the tiny tokenizer; ``template`` as ``policy.tokenizer.chat_template``."""
    tokenizer = tiny_tokenizer()
    return Recipe(
        tokenizer=tokenizer,
        template=resolve_template(template, tokenizer, None, "chat"),
        settings=DataSettings(max_length=max_length, **settings),
    )


def selection(path: Path, rows: Iterable[Mapping[str, Any]], *, most: int = 0) -> Selection:
    """Rows in a file, and those of them that are looked at."""
    return select([DataSource(path=write_jsonl(path, map(dict, rows)))], most)


def opened(folder: Path, train: Iterable[Any], validation: Iterable[Any] | None = None, **of_recipe: Any) -> OpenedData:
    """The data of a run of these rows."""
    return OpenedData(
        recipe=recipe(**of_recipe),
        train=selection(folder / "train.jsonl", train),
        validation=None if validation is None else selection(folder / "val.jsonl", validation),
    )
