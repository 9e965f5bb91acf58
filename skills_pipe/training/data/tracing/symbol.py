"""A text that is not known yet: it stands for a message's content while a template is run to see what it does with it.

Whatever a template does with a content either makes another such text (joined, stripped, a part of it), or asks
something of it that has a plain answer (does it contain ``</think>``?). Questions are written down with the answer that
the row at hand gives, since what the template does next may depend on it. All else is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

Contents: TypeAlias = Sequence[str]
"""The contents of a conversation's messages."""

Evaluate: TypeAlias = Callable[[Contents], Any]
"""What follows from the contents of a row."""


class Untraceable(Exception):
    """The template does something with a content that cannot be followed."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a template asked of the contents.

    Attributes:
        key: equal for equal questions.
        ask: gives the answer of a row.
        answer: of the row that was traced.
    """

    key: Hashable
    ask: Evaluate
    answer: Hashable


@dataclass(kw_only=True)
class Run:
    """One run of a template on a row.

    Attributes:
        contents: of the row.
        questions: in the order in which they were first asked.
        refused: what could not be followed; the run is void then, even where the template caught the exception.
    """

    contents: Contents
    questions: dict[Hashable, Question] = field(default_factory=dict)
    refused: str | None = None

    def answer(self, key: Hashable, ask: Evaluate) -> Any:
        """Ask the row, and write it down."""
        if key not in self.questions:
            self.questions[key] = Question(key=key, ask=ask, answer=ask(self.contents))
        return self.questions[key].answer

    def refuse(self, what: str) -> NoReturn:
        """Give up.

        Raises:
            Untraceable: always.
        """
        self.refused = what
        raise Untraceable(what)


@dataclass(frozen=True)
class Unknown:
    """A piece of text that depends on the contents; ``key`` is equal for equal pieces."""

    key: Hashable
    evaluate: Evaluate = field(compare=False)


Piece: TypeAlias = "str | Unknown"


class Symbol:
    """Pieces of text, some of them unknown. Not a ``str``: what takes it for one fails, and is noticed."""

    __slots__ = ("_pieces", "_run")

    def __init__(self, run: Run, pieces: tuple[Piece, ...]) -> None:
        self._run = run
        self._pieces = pieces

    def __add__(self, other: object) -> Symbol:
        return Symbol(self._run, (*self._pieces, *self._pieces_of(other)))

    def __radd__(self, other: object) -> Symbol:
        return Symbol(self._run, (*self._pieces_of(other), *self._pieces))

    def __bool__(self) -> bool:
        return bool(self._ask("bool", bool))

    def __contains__(self, part: object) -> bool:
        return bool(self._ask("contains", lambda text: self._plain(part) in text, part))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Symbol):
            left, right = evaluator(self._pieces), evaluator(other._pieces)
            key = ("equal", self._pieces, other._pieces)
            return bool(self._run.answer(key, lambda contents: left(contents) == right(contents)))
        return isinstance(other, str) and bool(self._ask("equals", lambda text: text == other, other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def startswith(self, *arguments: Any) -> bool:
        """As of ``str``."""
        return bool(self._ask("startswith", lambda text: text.startswith(*arguments), *map(self._plain, arguments)))

    def endswith(self, *arguments: Any) -> bool:
        """As of ``str``."""
        return bool(self._ask("endswith", lambda text: text.endswith(*arguments), *map(self._plain, arguments)))

    def _method(self, name: str, arguments: tuple[Any, ...]) -> Any:
        """The result of a method of ``str`` that gives a text, or texts, of which there may be any number."""
        arguments = tuple(map(self._plain, arguments))
        if name in _TEXT_METHODS:
            return derived(self, name, lambda text: getattr(text, name)(*arguments), arguments)
        count = self._ask(f"parts of {name}", lambda text: len(getattr(text, name)(*arguments)), *arguments)
        return [self._part(name, arguments, number) for number in range(count)]

    def _part(self, name: str, arguments: tuple[Any, ...], number: int) -> Symbol:
        return derived(self, name, lambda text: str(getattr(text, name)(*arguments)[number]), (*arguments, number))

    def _ask(self, name: str, ask: Callable[[str], Hashable], *arguments: object) -> Any:
        text = evaluator(self._pieces)
        return self._run.answer((name, self._pieces, arguments), lambda contents: ask(text(contents)))

    def _pieces_of(self, other: object) -> tuple[Piece, ...]:
        if isinstance(other, Symbol):
            return other._pieces
        return (self._plain(other),) if type(other) is str else self._run.refuse("a content and no text are added")

    def _plain(self, argument: Any) -> Any:
        if type(argument) in (str, int, type(None)):
            return argument
        if type(argument) is tuple and all(type(part) is str for part in argument):
            return argument
        return self._run.refuse(f"a content meets {type(argument).__name__}")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in _TEXT_METHODS or name in _PARTS_METHODS:
            return lambda *arguments: self._method(name, arguments)
        return self._run.refuse(f"{name} of a content")

    def _refused(self, *_: object) -> NoReturn:
        self._run.refuse("a content is used in a way that cannot be followed")

    __str__ = __repr__ = __format__ = __bytes__ = __hash__ = _refused
    __len__ = __iter__ = __getitem__ = __reversed__ = __int__ = __float__ = __index__ = __complex__ = _refused
    __lt__ = __le__ = __gt__ = __ge__ = _refused
    __mul__ = __rmul__ = __mod__ = __rmod__ = __sub__ = __rsub__ = __neg__ = __pos__ = __abs__ = _refused
    __truediv__ = __rtruediv__ = __floordiv__ = __rfloordiv__ = __pow__ = __rpow__ = _refused


def derived(symbol: Symbol, name: str, change: Callable[[str], str], arguments: tuple[Hashable, ...] = ()) -> Symbol:
    """What ``change`` makes of a text; ``name`` and ``arguments`` tell it from other changes."""
    text = evaluator(symbol._pieces)
    unknown = Unknown((name, symbol._pieces, arguments), lambda contents: change(text(contents)))
    return Symbol(symbol._run, (unknown,))


def pieces_of(symbol: Symbol) -> tuple[Piece, ...]:
    """What a text consists of; no method, or templates could call it."""
    return symbol._pieces


def evaluator(pieces: Sequence[Piece]) -> Callable[[Contents], str]:
    """The text of pieces, for any contents."""
    if len(pieces) == 1 and isinstance(pieces[0], Unknown):
        return pieces[0].evaluate
    parts = [piece if isinstance(piece, str) else piece.evaluate for piece in pieces]
    return lambda contents: "".join([part if isinstance(part, str) else part(contents) for part in parts])


_TEXT_METHODS: Final = frozenset(
    ("strip", "lstrip", "rstrip", "replace", "removeprefix", "removesuffix", "lower", "upper", "capitalize", "title")
)
_PARTS_METHODS: Final = frozenset(("split", "rsplit", "splitlines", "partition", "rpartition"))
