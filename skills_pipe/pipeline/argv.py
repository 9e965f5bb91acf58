"""Sorting the words of a command line: options of the launcher, and what goes on to the inner program.

Words that start with ``++``, ``+`` or ``~``, and all words behind a bare ``--``, belong to the inner program and reach
it as they are, whatever quotes and spaces they hold.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from skills_pipe.errors import OptionError, did_you_mean
from skills_pipe.pipeline.options import Kind, Option, join_problems

_HELP = ("--help", "-h")


@dataclass(frozen=True)
class Arguments:
    """Words of a command line, for the ``ctx`` of the Python functions."""

    args: tuple[str, ...] = ()


def wrap_arguments(text: str) -> Arguments:
    """Words of a command line, split as a shell would: ``wrap_arguments("++a=1 '++b=x y'")``."""
    return Arguments(args=tuple(shlex.split(text)))


@dataclass(kw_only=True)
class Sorted:
    """What the words of a command line mean.

    Attributes:
        values: option -> text, texts (where it repeats) or truth (switches).
        extras: words for the inner program.
        wants_help: ``--help`` was given.
    """

    values: dict[str, Any] = field(default_factory=dict)
    extras: tuple[str, ...] = ()
    wants_help: bool = False


def sort_words(words: Sequence[str], options: Sequence[Option], *, takes_extras: bool) -> Sorted:
    """Tell which word means what.

    Args:
        words: the command line behind the name of the command.
        options: all options of the command.
        takes_extras: whether the command has an inner program that takes ``++key=value``.

    Raises:
        OptionError: unknown options, missing values, words too many; all of them are told.
    """
    sorter = _Sorter(words, options, takes_extras)
    sorter.run()
    if sorter.problems and not sorter.result.wants_help:
        raise join_problems(sorter.problems)
    return sorter.result


class _Sorter:
    def __init__(self, words: Sequence[str], options: Sequence[Option], takes_extras: bool) -> None:
        self.result = Sorted()
        self.problems: list[OptionError] = []
        self._words = list(words)
        self._takes_extras = takes_extras
        self._arguments = [option for option in options if option.kind is Kind.ARGUMENT]
        self._on = {flag: option for option in options if option.kind is not Kind.ARGUMENT for flag in option.on}
        self._off = {flag: option for option in options for flag in option.off}

    def run(self) -> None:
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                self._rest()
            elif word in _HELP:
                self.result.wants_help = True
            elif word.startswith(("+", "~")):
                self._extra(word)
            elif word.startswith("-") and len(word) > 1:
                self._flag(word)
            else:
                self._argument(word)

    def _rest(self) -> None:
        rest, self._words = self._words, []
        verbatim = self._verbatim()
        if verbatim is not None:
            self.result.values[verbatim.name] = tuple(rest)
        else:
            for word in rest:
                self._extra(word)

    def _extra(self, word: str) -> None:
        if not self._takes_extras:
            self.problems.append(OptionError(f"this command passes nothing on, so {word!r} has no meaning"))
        self.result.extras += (word,)

    def _flag(self, word: str) -> None:
        name, equals, text = word.partition("=")
        if name in self._off:
            self._switch(self._off[name], value=False, given=text if equals else None)
        elif name not in self._on:
            self._unknown(name)
        elif self._on[name].kind is Kind.SWITCH:
            self._switch(self._on[name], value=True, given=text if equals else None)
        elif equals:
            self._store(self._on[name], text)
        elif self._words and not self._words[0].startswith("--"):
            self._store(self._on[name], self._words.pop(0))
        else:
            self.problems.append(OptionError(f"{name} needs a value", fix=f"write {name}={self._on[name].metavar}"))

    def _switch(self, option: Option, *, value: bool, given: str | None) -> None:
        if given is not None:
            self.problems.append(OptionError(f"{option.spelling} takes no value", fix=f"drop '={given}'"))
        self.result.values[option.name] = value

    def _unknown(self, name: str) -> None:
        known = [*self._on, *self._off, "--help"]
        advice = did_you_mean(name, known) or did_you_mean(name.replace("-", "_").replace("__", "--", 1), known)
        self.problems.append(OptionError(f"there is no option {name}", fix=advice or "--help lists all of them"))

    def _argument(self, word: str) -> None:
        verbatim = self._verbatim()
        if verbatim is not None:
            self.result.values[verbatim.name] = (word, *self._words)
            self._words = []
            return
        free = [option for option in self._arguments if option.repeats or option.name not in self.result.values]
        if free:
            self._store(free[0], word)
        else:
            fix = (
                "name options with --"
                if not self._takes_extras
                else "name options with --, keys of the program with ++"
            )
            self.problems.append(OptionError(f"{word!r} is one word too many", fix=fix))

    def _store(self, option: Option, text: str) -> None:
        if option.repeats:
            self.result.values[option.name] = (*self.result.values.get(option.name, ()), text)
        else:
            self.result.values[option.name] = text

    def _verbatim(self) -> Option | None:
        return next((option for option in self._arguments if option.declaration.verbatim), None)
