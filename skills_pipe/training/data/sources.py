"""Training data on disk: JSON rows, read one by one, as conversations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.rows import Form, RowKeys, UnfitRow, parse_row, row_form, starts_array
from skills_pipe.errors import DataError
from skills_pipe.training.data.rows import BadRow, Conversation


@dataclass(frozen=True, kw_only=True)
class DataSource(RowKeys):
    """One file of rows and the keys to read them by.

    Attributes:
        path: ``.jsonl`` (one JSON object per line) or ``.json`` (the same, or one array of objects).
        system_key: system prompt of the row, None when rows have none.
        system_prompt: system prompt of rows without one of their own.
        prompt: text with a ``{}`` that the first user message of each row is put into.
    """

    path: Path
    system_key: str | None = None
    system_prompt: str | None = None
    prompt: str | None = None


def read_conversations(source: DataSource) -> Iterator[Conversation | BadRow]:
    """Read the rows of a file, in its order, without holding them all.

    Raises:
        DataError: there is no such file, or it is no JSON file.
    """
    for where, row in _read_rows(source.path):
        yield row if isinstance(row, BadRow) else _conversation(row, source, where)


def first_form(sources: Iterable[DataSource]) -> Form | None:
    """Form of the first row that can be used, None when there is none."""
    rows = chain.from_iterable(read_conversations(source) for source in sources)
    return next((row.form for row in rows if isinstance(row, Conversation)), None)


def _read_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield (where, value) for each row; the value is a BadRow where it cannot be parsed."""
    if path.suffix not in (".jsonl", ".json"):
        raise DataError(
            f"cannot read {path.name!r} as training data", where=str(path), fix="give a .jsonl or .json file"
        )
    if not path.is_file():
        raise DataError("there is no such file of training data", where=str(path))
    with open(path, "rb") as file:
        if path.suffix == ".json" and starts_array(file.read(64)):
            file.seek(0)
            yield from _read_array(path, file.read())
            return
        file.seek(0)
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path}:{number}"
                yield where, _parse(line, where)


def _read_array(path: Path, text: bytes) -> Iterator[tuple[str, Any]]:
    rows = _parse(text, str(path))
    if isinstance(rows, BadRow):
        raise DataError(f"the file is {rows.what}", where=str(path))
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row


def _parse(text: bytes, where: str) -> Any:
    try:
        return parse_row(text)
    except UnfitRow as problem:
        return BadRow(where=where, what=str(problem))


def _conversation(row: Any, source: DataSource, where: str) -> Conversation | BadRow:
    try:
        form = row_form(row, source)
    except UnfitRow as problem:
        return BadRow(where=where, what=str(problem))
    messages = row[source.chat_key] if form != "pair" else _pair(row, source)
    what = _unfit_for_prompt(messages, source)
    if what:
        return BadRow(where=where, what=what)
    tools = row.get(source.tool_key) if source.tool_key else None
    messages = _with_system(_with_prompt(messages, source), row, source)
    return Conversation(messages=messages, tools=tools, form=form, where=where)


def _pair(row: Mapping[str, Any], source: DataSource) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": row[source.input_key]},
        {"role": "assistant", "content": row[source.output_key]},
    ]


def _unfit_for_prompt(messages: list[dict[str, Any]], source: DataSource) -> str | None:
    """Only text can be put into the source's prompt."""
    first = next((message for message in messages if message["role"] == "user"), None)
    if source.prompt is None or first is None or isinstance(first.get("content"), str):
        return None
    return f"the content of its first user message is {type(first.get('content')).__name__}, not text for the prompt"


def _with_prompt(messages: list[dict[str, Any]], source: DataSource) -> list[dict[str, Any]]:
    """Messages with the first one of the user put into the source's prompt."""
    first = next((at for at, message in enumerate(messages) if message["role"] == "user"), None)
    if source.prompt is None or first is None:
        return messages
    asked = {**messages[first], "content": source.prompt.format(messages[first].get("content"))}
    return [*messages[:first], asked, *messages[first + 1 :]]


def _with_system(messages: list[dict[str, Any]], row: Mapping[str, Any], source: DataSource) -> list[dict[str, Any]]:
    """Messages with the row's or the default system prompt in front, unless they begin with one."""
    prompt = row.get(source.system_key) if source.system_key else None
    prompt = prompt or source.system_prompt
    if not prompt or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": prompt}, *messages]
