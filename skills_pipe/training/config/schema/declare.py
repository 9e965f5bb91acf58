"""What is declared of a key of the configuration beside its name and type."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Final

NO_VALUE: Final = object()


@dataclass(frozen=True)
class Key:
    """A key as it is declared: ``seed: Annotated[int, Key("Seed of the order of the data.", minimum=0)]``.

    Attributes:
        doc: one line for the reference page.
        minimum: least value allowed, inclusive.
        above: bound that the value must exceed.
        absent: value when the key has been deleted (``~key``) or a section of a user's file lacks it.
        lower: whether the value is read without regard to case.
        numbers: whether text in a free section that is a number, such as "1e-5", is read as one.
        written: the type in which the key is written, where programs read another one.
        also: names that other trainers give it: who writes one of them is told this key.
        otherwise: what to do, for who writes a value that it does not take and that is near to none.
    """

    doc: str
    _: KW_ONLY
    minimum: float | None = None
    above: float | None = None
    absent: Any = NO_VALUE
    lower: bool = False
    numbers: bool = False
    written: Any = None
    also: tuple[str, ...] = ()
    otherwise: str | None = None
