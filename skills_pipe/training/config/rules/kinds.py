"""What must hold between the rows of all data, where the chat template is inferred from the first row."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from skills_pipe.artifacts.rows import KINDS, Form
from skills_pipe.errors import DataError

LOOKED_AT: Final = 20
"""Rows of a data set by which it is judged."""


def settles_nothing(form: Form | None) -> DataError | None:
    """Why no chat template can be inferred from the form of the first row; None where one can."""
    if form != "both":
        return None
    return DataError(
        "the first row has messages and input/output: the chat template cannot be inferred",
        where="policy.tokenizer.chat_template",
        fix="set it to null or 'default'",
    )


def another_kind(trained: tuple[str, Form], other: tuple[str, Collection[Form]]) -> DataError | None:
    """Why data cannot be used beside those for whose first row the template was inferred; None where they can.

    Single rows of another kind are bad rows, as ``data.on_bad_row`` says. Data that begin with nothing else would be
    refused row by row, or left out whole: an error in either case.

    Args:
        trained: what the training data are called, and the form of their first row.
        other: what the others are called, and the forms of their first rows.
    """
    (path, form), (other_path, forms) = trained, other
    found = set(forms)
    if len(found) != 1 or form in found:
        return None
    return DataError(
        f"{path} holds rows of {KINDS[form]}, {other_path} rows of {KINDS[found.pop()]}",
        where="policy.tokenizer.chat_template=infer_from_data",
        fix="set ++policy.tokenizer.chat_template=default, which makes the text of both by the tokenizer's template, "
        "or write both with rows of one kind",
    )
