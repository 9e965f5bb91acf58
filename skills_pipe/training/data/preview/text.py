"""Documents in a terminal: what is trained is green there, and stands between ⟦ and ⟧ in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.markup import escape
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.preview.document import Document, Token, document_of, runs
from skills_pipe.training.data.preview.visible import visible

_TRAINED: Final = "bold green"
_WEIGHTED: Final = "bold yellow"
_GIVEN: Final = "dim"


def preview(example: Example, tokenizer: PreTrainedTokenizerBase, *, markup: bool = False) -> str:
    """Text of a document: what is trained stands in green with ``markup`` (for rich), else between ⟦ and ⟧."""
    tokens = document_of(example, tokenizer).tokens
    if not markup:
        return marked(tokens)
    return "".join(f"[{_style(weight)}]{escape(_text(part))}[/]" for weight, part in runs(tokens))


def marked(tokens: Sequence[Token]) -> str:
    """Text of tokens, what is trained in brackets; a weight other than 1 stands before it."""
    parts = []
    for weight, part in runs(tokens):
        name = "" if weight == 1 else f"{weight:g}×"
        parts.append(f"{name}⟦{_text(part)}⟧" if weight else _text(part))
    return "".join(parts)


def render(document: Document, *, ids: bool = False) -> Text:
    """A document for a console: a heading, and a part for each turn with its role.

    ``Text.plain`` has the brackets too, so that nothing is lost where there are no colours.
    """
    shown = Text()
    shown.append(heading(document), "bold")
    for note in document.notes:
        shown.append(f"\n  note: {visible(note)}", "yellow")
    for role, tokens in document.turns():
        trained = sum(token.weight != 0 for token in tokens)
        counts = count_tokens(len(tokens)) + (f", {trained:,} trained" if trained else "")
        shown.append(f"\n{visible(role) if role else 'text'} ({counts})\n", "cyan")
        for weight, part in runs(tokens):
            name = "" if weight == 1 else f"{weight:g}×"
            shown.append(f"{name}⟦{_text(part)}⟧" if weight else _text(part), _style(weight))
        if ids:
            shown.append("ids: " if shown.plain.endswith("\n") else "\nids: ", "cyan")
            for weight, part in runs(tokens):
                numbers = " ".join(str(token.id) for token in part)
                shown.append(f"⟦{numbers}⟧ " if weight else f"{numbers} ", _style(weight))
    if shown.plain.endswith("\n"):
        shown.right_crop(1)
    return shown


def heading(document: Document) -> str:
    """Where a document comes from, and how much of it is trained."""
    count = len(document.tokens)
    share = f" ({document.trained / count:.1%})" if count else ""
    return f"{document.where}: {count_tokens(count)}, {document.trained:,} trained{share}"


def count_tokens(count: int) -> str:
    """``1 token``, ``2 tokens``."""
    return f"{count:,} token{'' if count == 1 else 's'}"


def _text(tokens: Sequence[Token]) -> str:
    return visible("".join(token.text for token in tokens))


def _style(weight: float) -> str:
    return _GIVEN if weight == 0 else _TRAINED if weight == 1 else _WEIGHTED
