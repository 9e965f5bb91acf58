"""Plain texts, and dialogues as lists of texts: the samples of trlX."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from skills_pipe.training.data.rows import BadRow, Pieces, Row, Segment


@dataclass(frozen=True, kw_only=True)
class Texts:
    """A text is trained as a whole; of a list ``[prompt, output, prompt, output, ...]`` every output.

    Attributes:
        text_key: of rows that are objects: their text or list.
    """

    text_key: str = "text"

    def rows(self, value: Any, where: str) -> Iterator[Row]:
        """The text or dialogue of a row."""
        if isinstance(value, Mapping):
            if self.text_key not in value:
                keys = ", ".join(map(repr, value))
                yield BadRow(where=where, what=f"no {self.text_key!r} among its keys {keys}")
                return
            value = value[self.text_key]
        if isinstance(value, str):
            yield Pieces(segments=(Segment(text=value, trained=True),), where=where)
        elif not isinstance(value, list) or not value or not all(isinstance(part, str) for part in value):
            yield BadRow(where=where, what=f"{type(value).__name__} is neither a text nor a list of texts")
        elif len(value) % 2:
            yield BadRow(where=where, what=f"a dialogue of {len(value)} texts; each prompt needs an output")
        else:
            segments = [Segment(text=part, trained=bool(index % 2)) for index, part in enumerate(value)]
            yield Pieces(segments=tuple(segments), where=where)
