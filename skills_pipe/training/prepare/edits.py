"""Processors that change the text or the keys of single rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from skills_pipe.errors import ConfigError, DataError, did_you_mean
from skills_pipe.training.prepare.jsonl import Row
from skills_pipe.training.prepare.processor import Editor, text_of

_PREFIX = "My solution:\n"
_EXECUTIONS_LEFT = re.compile(r"Remaining code executions: (\d+).")
_NO_EXECUTIONS_LEFT = "You have run out of code executions!"


@dataclass(frozen=True, kw_only=True)
class TrimPrefix(Editor):
    """Removes the opening line ``My solution:`` from solutions."""

    solution_key: str = "generation"

    def edit(self, row: Row) -> bool:
        """Cut the opening line off, where there is one."""
        text = text_of(row, self.solution_key)
        row[self.solution_key] = text.removeprefix(_PREFIX)
        return text.startswith(_PREFIX)


@dataclass(frozen=True, kw_only=True)
class TrimSolutions(Editor):
    r"""Cuts solutions off after the line of their last ``\boxed{}``."""

    solution_key: str = "generation"

    def edit(self, row: Row) -> bool:
        """Cut what follows the line in which the boxed answer ends."""
        text = text_of(row, self.solution_key)
        end = end_of_boxed_answer(text)
        line_end = -1 if end is None else text.find("\n", end)
        if line_end < 0:
            return False
        row[self.solution_key] = text[:line_end]
        return True


@dataclass(frozen=True, kw_only=True)
class AddCodeExecutionsCounts(Editor):
    """Notes how many code executions a solution was allowed, as its own text tells.

    Args:
        solution_key: key of the solution.
        ce_counter_key: key that receives the number.
    """

    solution_key: str = "generation"
    ce_counter_key: str = "total_code_executions"

    def edit(self, row: Row) -> bool:
        """Add the number: one more than were left after the first execution."""
        text = text_of(row, self.solution_key)
        left = _EXECUTIONS_LEFT.search(text)
        row[self.ce_counter_key] = int(left.group(1)) + 1 if left else int(_NO_EXECUTIONS_LEFT in text)
        return True


@dataclass(frozen=True, kw_only=True)
class RenameFields(Editor):
    """Gives keys other names.

    Args:
        rename_fields: ``{old: new}``, or pairs ``[[old, new]]`` where a name comes from an interpolation.
    """

    rename_fields: dict[str, str] | list[list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.rename_fields, list) and any(len(pair) != 2 for pair in self.rename_fields):
            raise ConfigError("rename_fields holds something else than pairs", where=type(self).__name__)

    def edit(self, row: Row) -> bool:
        """Rename, one pair after the other; a renamed key moves to the end of the row."""
        pairs = self.rename_fields.items() if isinstance(self.rename_fields, dict) else self.rename_fields
        for old, new in pairs:
            if old not in row:
                raise DataError(f"a row has no {old!r} to rename", where="rename_fields", fix=did_you_mean(old, row))
            row[new] = row.pop(old)
        return bool(self.rename_fields)


def end_of_boxed_answer(text: str) -> int | None:
    r"""Position behind the last ``\boxed{...}``, braces balanced; None when there is none or it is never closed."""
    start = text.rfind("\\boxed")
    if start < 0 or not text.startswith("\\boxed{", start):
        return None
    depth = 0
    for position in range(start + len("\\boxed"), len(text)):
        if text[position] == "{":
            depth += 1
        elif text[position] == "}":
            depth -= 1
            if depth == 0:
                return position + 1
    return None
