"""Whether all data of a run hold rows of the kind for which its chat template was inferred."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice

from skills_pipe.artifacts.rows import Form
from skills_pipe.training.config.rules.kinds import LOOKED_AT, another_kind
from skills_pipe.training.data.rows import Conversation
from skills_pipe.training.data.sources import DataSource, read_rows
from skills_pipe.training.data.sources.configured import RunSources
from skills_pipe.training.data.template import ChatTemplate


def check_kinds(template: ChatTemplate, sources: RunSources) -> None:
    """Refuse a data set whose first rows are all of one kind, and not that of the training data's first row.

    Raises:
        DataError: there is one.
    """
    if template.form is None:
        return
    trained = _path(sources.train[0])
    for rows in (*sources.train, *sources.validation.values()):
        problem = another_kind((trained, template.form), (_path(rows), _forms(rows)))
        if problem is not None:
            raise problem


def _path(rows: Sequence[DataSource]) -> str:
    return ", ".join(str(path) for path in dict.fromkeys(source.path for source in rows))


def _forms(rows: Sequence[DataSource]) -> set[Form]:
    """Kinds among the first rows that have one."""
    first = islice(chain.from_iterable(read_rows(source) for source in rows), LOOKED_AT)
    return {row.form for row in first if isinstance(row, Conversation)}
