"""A command of the launcher: its options and what it does with them, the same for the terminal and for Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.argv import sort_words
from skills_pipe.pipeline.options import Option, build, options_of


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        options: dataclass with the fields that :mod:`skills_pipe.pipeline.options` describes.
        run: takes an instance of it and the words for the inner program; what it returns is what the Python function
            returns, and when that is a number, the exit code of the command.
        takes_extras: whether there is an inner program that takes ``++key=value``.
    """

    options: type
    run: Callable[[Any, tuple[str, ...]], Any]
    takes_extras: bool = False

    @property
    def all_options(self) -> tuple[Option, ...]:
        """Its options in the order of the help."""
        return options_of(self.options)

    def call(self, words: Sequence[str], keywords: Mapping[str, Any]) -> Any:
        """Run it with words of a command line, Python keywords, or both.

        Raises:
            OptionError: something is unknown, missing, of a wrong type or given twice.
        """
        found = sort_words(words, self.all_options, takes_extras=self.takes_extras)
        twice = sorted(found.values.keys() & keywords.keys())
        if twice:
            raise OptionError(f"{', '.join(twice)} is given both as a keyword and in the arguments", fix="keep one")
        return self.run(build(self.options, {**found.values, **keywords}), found.extras)
