"""Rows -> documents to show, with what happened to each row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from skills_pipe.errors import DataError
from skills_pipe.training.data.chunk import Recipe, mask_rules
from skills_pipe.training.data.inspection.rows import InspectedRow, RowInspector
from skills_pipe.training.data.mask import make_samples
from skills_pipe.training.data.preview.document import Document, document_of
from skills_pipe.training.data.preview.roles import role_ends, with_roles
from skills_pipe.training.data.rows import Conversation, Row


def shown_documents(rows: Iterable[Row], recipe: Recipe, count: int) -> list[Document]:
    """The documents of the first ``count`` rows; one that cannot be trained is shown with the reason."""
    inspector = RowInspector(recipe)
    return [document for row in islice(rows, count) for document in _documents(inspector.inspect(row), recipe)]


def _documents(inspected: InspectedRow, recipe: Recipe) -> Iterator[Document]:
    if inspected.fault is not None:
        policy = "training refuses it" if recipe.settings.on_bad_row == "error" else "it is left out"
        yield Document(tokens=(), where=inspected.where, notes=(f"{policy}: {inspected.fault.what}",))
        return
    notes = tuple(_notes(inspected, recipe))
    shown = inspected.documents or inspected.unlimited
    if not shown:
        yield Document(tokens=(), where=inspected.where, notes=notes)
    texts = _texts(inspected.row, recipe)
    for index, example in enumerate(shown):
        part = f" (document {index + 1} of {len(shown)})" if len(shown) > 1 else ""
        document = replace(
            document_of(example, recipe.tokenizer), where=inspected.where + part, notes=notes if index == 0 else ()
        )
        if isinstance(inspected.row, Conversation) and len(texts) == len(shown):
            text = texts[index]
            document = with_roles(document, text, role_ends(inspected.row, recipe.template, text))
        yield document


def _notes(inspected: InspectedRow, recipe: Recipe) -> Iterator[str]:
    limit = recipe.settings.max_length
    longest = max((len(example.input_ids) for example in inspected.unlimited), default=0)
    for reason in inspected.dropped:
        yield f"not trained: {reason}" + (f" ({longest:,} tokens, {limit:,} allowed)" if longest > limit else "")
    if inspected.counts.get("truncated"):
        yield f"shortened from {longest:,} tokens to {limit:,}"
    if inspected.counts.get("doubled_bos"):
        yield "a second beginning-of-text token was removed"
    if inspected.counts.get("split_documents"):
        yield "the template changes earlier turns later on: each is trained in the text that the model saw before it"
    if inspected.counts.get("turns_without_stop"):
        yield "an answer ends without a stop token"


def _texts(row: Row, recipe: Recipe) -> list[str]:
    """The whole text of each document of a row; none where it cannot be used."""
    if not isinstance(row, Conversation):
        return []
    try:
        samples = make_samples(row, recipe.template, mask_rules(recipe.tokenizer, recipe.settings))
    except DataError:
        return []
    return [sample.text for sample in samples]
