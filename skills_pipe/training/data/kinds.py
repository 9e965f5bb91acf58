"""Whether all data of a run hold rows of the kind for which its chat template was inferred."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import Final

from skills_pipe.artifacts.rows import KINDS, Form
from skills_pipe.errors import DataError
from skills_pipe.training.data.rows import Conversation
from skills_pipe.training.data.sources import DataSource, read_rows
from skills_pipe.training.data.sources.configured import RunSources
from skills_pipe.training.data.template import ChatTemplate

_LOOKED_AT: Final = 20
"""Rows of a data set."""


def check_kinds(template: ChatTemplate, sources: RunSources) -> None:
    """Refuse a data set whose first rows are all of one kind, and not that of the training data's first row.

    It would be refused row by row, or left out whole. Single rows of another kind are bad rows: told as they are read.

    Raises:
        DataError: there is one.
    """
    if template.form is None:
        return
    for rows in (*sources.train, *sources.validation.values()):
        forms = _forms(rows)
        if len(forms) == 1 and template.form not in forms:
            trained = ", ".join(str(path) for path in dict.fromkeys(source.path for source in sources.train[0]))
            other = ", ".join(str(path) for path in dict.fromkeys(source.path for source in rows))
            raise DataError(
                f"{trained} holds rows of {KINDS[template.form]}, {other} rows of {KINDS[forms.pop()]}",
                where="policy.tokenizer.chat_template=infer_from_data",
                fix="set ++policy.tokenizer.chat_template=default, which makes the text of both by the tokenizer's "
                "template, or write both files with rows of one kind",
            )


def _forms(rows: Sequence[DataSource]) -> set[Form]:
    """Kinds among the first rows that have one."""
    first = islice(chain.from_iterable(read_rows(source) for source in rows), _LOOKED_AT)
    return {row.form for row in first if isinstance(row, Conversation)}
