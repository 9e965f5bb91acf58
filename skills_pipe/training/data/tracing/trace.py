"""What a template makes of one kind of conversation: pieces of text and contents, after a few questions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from skills_pipe.training.data.tracing.symbol import Contents, Evaluate, Piece, Question, Symbol, Untraceable, pieces_of


@dataclass(frozen=True)
class Written:
    """The end of a trace: what the template writes.

    Attributes:
        pieces: in order.
        marks: for each ``{% generation %}`` the numbers of its first piece and of the one after its last.
    """

    pieces: tuple[str | Evaluate, ...]
    marks: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, writes: Sequence[str | Symbol], marks: Sequence[tuple[int, str | Symbol]]) -> Written:
        """From what a run wrote.

        Raises:
            Untraceable: what a mark holds is not what is written after it.
        """
        starts = [0]
        pieces: list[Piece] = []
        for write in writes:
            pieces += _pieces(write)
            starts.append(len(pieces))
        spans = []
        for before, write in marks:
            start, inside = starts[before], _pieces(write)
            if pieces[start : start + len(inside)] != inside:
                raise Untraceable("what is marked by {% generation %} is not written at once")
            spans.append((start, start + len(inside)))
        return cls(tuple(piece if isinstance(piece, str) else piece.evaluate for piece in pieces), tuple(spans))

    def text(self, contents: Contents) -> str:
        """The text of a row."""
        return "".join([piece if isinstance(piece, str) else piece(contents) for piece in self.pieces])

    def marked(self, contents: Contents) -> tuple[str, list[tuple[int, int]]]:
        """The text of a row and the spans of it that are marked, in characters."""
        texts = [piece if isinstance(piece, str) else piece(contents) for piece in self.pieces]
        ends = [0]
        for text in texts:
            ends.append(ends[-1] + len(text))
        return "".join(texts), [(ends[start], ends[stop]) for start, stop in self.marks]


@dataclass(frozen=True)
class Asked:
    """A question, and what comes after each answer that was met."""

    key: Hashable
    ask: Evaluate
    answers: dict[Hashable, Asked | Written]


Step: TypeAlias = "Asked | Written"


def follow(step: Step | None, contents: Contents) -> Written | None:
    """Where the answers of a row lead; None where no traced row has given them."""
    while isinstance(step, Asked):
        step = step.answers.get(step.ask(contents))
    return step


def grown(step: Step | None, questions: Sequence[Question], end: Written) -> Step:
    """The steps with those of one more row.

    Raises:
        Untraceable: the same answers have led to other questions before.
    """
    if not questions:
        if step is not None:
            raise Untraceable("the template does not do the same on equal answers")
        return end
    first, *others = questions
    if step is None:
        step = Asked(first.key, first.ask, {})
    if not isinstance(step, Asked) or step.key != first.key:
        raise Untraceable("the template does not ask the same on equal answers")
    step.answers[first.answer] = grown(step.answers.get(first.answer), others, end)
    return step


def _pieces(write: str | Symbol) -> list[Piece]:
    pieces: Sequence[Piece] = pieces_of(write) if isinstance(write, Symbol) else (write,)
    return [piece for piece in pieces if piece != ""]
