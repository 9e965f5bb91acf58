"""Who says which part of a document: found in the text that the chat template makes of the messages."""

from __future__ import annotations

from dataclasses import replace

from skills_pipe.errors import DataError
from skills_pipe.training.data.preview.document import Document
from skills_pipe.training.data.rows import Conversation
from skills_pipe.training.data.template import ChatTemplate

Ends = list[tuple[int, str]]
"""(position behind it, role) of each part of a text, in order."""


def with_roles(document: Document, text: str, ends: Ends) -> Document:
    """The document with the role of each token.

    Args:
        document: its tokens may be fewer than those of the text, and their text slightly different from it.
        text: the whole text that the document was made of.
        ends: see :func:`role_ends`.
    """
    shown = "".join(token.text for token in document.tokens)
    same = _common(text, shown)
    same_at_end = min(_common(text[::-1], shown[::-1]), len(shown) - same)
    tokens = []
    position = 0
    for token in document.tokens:
        if position < same or same == len(shown):
            role = _role_at(position, ends)
        elif position >= len(shown) - same_at_end:
            role = _role_at(position + len(text) - len(shown), ends)
        else:
            role = None
        tokens.append(replace(token, role=role))
        position += len(token.text)
    return replace(document, tokens=tuple(tokens))


def role_ends(row: Conversation, template: ChatTemplate, text: str) -> Ends:
    """Where the messages of a row end in the text of one of its documents.

    Messages whose end cannot be found, because the template refuses to stop there or changes them later, share a part
    with the next one: its role is then ``system+user``, say.
    """
    ends: Ends = []
    roles: list[str] = []
    for index, message in enumerate(row.messages):
        roles.append(str(message["role"]))
        try:
            told = template.render(row.messages[: index + 1], row.tools)
        except DataError:
            continue
        # A beginning-of-text token may stand before what the template gives.
        start = text.find(told)
        if start < 0 or (ends and start + len(told) <= ends[-1][0]):
            continue
        ends.append((start + len(told), "+".join(dict.fromkeys(roles))))
        roles = []
    last = ends[-1][1] if ends else "+".join(dict.fromkeys(roles))
    return [*ends, (len(text) + 1, last)]


def _common(one: str, other: str) -> int:
    """Number of characters that two texts have in common at their start."""
    if other.startswith(one):
        return len(one)
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(other))


def _role_at(position: int, ends: Ends) -> str | None:
    return next((role for end, role in ends if position < end), ends[-1][1] if ends else None)
