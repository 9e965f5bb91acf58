"""The words of a command line that are not Typer's to judge: keys of the inner program, and mistakes told all at once.

Words that start with ``++``, ``+`` or ``~``, and all words behind a bare ``--``, belong to the inner program and reach
it as they are, whatever quotes and spaces they hold.
"""

from __future__ import annotations

import shlex
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from skills_pipe.errors import OptionError, did_you_mean
from skills_pipe.pipeline.options.declaration import Kind, Option


@dataclass(frozen=True)
class Arguments:
    """Words of a command line, for the ``ctx`` of the Python functions."""

    args: tuple[str, ...] = ()


def wrap_arguments(text: str | Sequence[str]) -> Arguments:
    """Words of a command line, split as a shell would: ``wrap_arguments("++a=1 '++b=x y'")``; a list is not split."""
    return Arguments(args=tuple(shlex.split(text) if isinstance(text, str) else text))


@dataclass(kw_only=True)
class Division:
    """Whom the words of a command line are for.

    Attributes:
        own: words for Typer: options of the launcher and their values, arguments.
        extras: words for the inner program.
        verbatim: the command that ``ns run_cmd`` runs.
        problems: mistakes at which Typer would stop, or that it would not see.
    """

    own: list[str] = field(default_factory=list)
    extras: list[str] = field(default_factory=list)
    verbatim: list[str] = field(default_factory=list)
    problems: list[OptionError] = field(default_factory=list)


def divide(words: Sequence[str], options: Sequence[Option], *, takes_extras: bool) -> Division:
    """Tell the words of the launcher from those of the inner program; a flag is never taken for a value."""
    valued = {flag: option for option in options if option.kind is Kind.VALUE for flag in option.on}
    switches = {flag for option in options if option.kind is Kind.SWITCH for flag in option.on + option.off}
    takes_verbatim = any(option.declaration.verbatim for option in options)
    found = Division()
    rest = deque(words)
    while rest:
        word = rest.popleft()
        name, equals, text = word.partition("=")
        if word == "--" or (takes_verbatim and not word.startswith(("+", "~")) and not _is_flag(word)):
            inner = found.verbatim if takes_verbatim else found.extras
            inner += [*rest] if word == "--" else [word, *rest]
            break
        if word.startswith(("+", "~")):
            found.extras.append(word)
        elif name in switches and equals:
            found.problems.append(OptionError(f"{name} takes no value", fix=f"drop '={text}'"))
        elif word not in valued:
            found.own.append(word)
        elif rest and not rest[0].startswith("--"):
            found.own += [word, rest.popleft()]
        else:
            fix = f"write {word}={valued[word].metavar}"
            found.problems.append(OptionError(f"{word} needs a value", fix=fix))
    if not takes_extras:
        found.problems += [
            OptionError(f"this command passes nothing on, so {word!r} has no meaning", fix="leave it out")
            for word in found.extras
        ]
    return found


def misplaced(
    words: Sequence[str], options: Sequence[Option], *, takes_extras: bool, elsewhere: Callable[[str], str | None]
) -> list[OptionError]:
    """Mistakes among the words that are no options, in which Typer leaves flags that it does not know.

    Args:
        elsewhere: what to do here in the place of a flag of other programs.
    """
    arguments = [option for option in options if option.kind is Kind.ARGUMENT]
    flags = [word.partition("=")[0] for word in words if _is_flag(word)]
    plain = [word for word in words if not _is_flag(word)]
    room = len(plain) if any(option.repeats for option in arguments) else len(arguments)
    return [
        *(_unknown(flag, options, elsewhere(flag)) for flag in flags),
        *(_too_many(word, options, takes_extras=takes_extras) for word in plain[room:]),
    ]


def _too_many(word: str, options: Sequence[Option], *, takes_extras: bool) -> OptionError:
    """``num_gpus=8`` was meant as an option, ``sft.seed=1`` as a key of the program."""
    name, equals, _ = word.partition("=")
    if equals and any(option.name == name for option in options):
        fix = f"did you mean --{word}?"
    elif equals and takes_extras:
        fix = f"did you mean ++{word}?"
    else:
        fix = "name options with --" + (", keys of the program with ++" if takes_extras else "")
    return OptionError(f"{word!r} is one word too many", fix=fix)


def _is_flag(word: str) -> bool:
    return word.startswith("-") and len(word) > 1


def _unknown(flag: str, options: Sequence[Option], meant: str | None) -> OptionError:
    known = [
        "--help",
        *(name for option in options if option.kind is not Kind.ARGUMENT for name in option.on + option.off),
    ]
    spelled = flag.replace("-", "_").replace("__", "--", 1)
    advice = f"did you mean {spelled!r}?" if spelled in known else meant or did_you_mean(flag, known)
    advice = advice or did_you_mean(spelled, known)
    return OptionError(f"there is no option {flag}", fix=advice or "--help lists all of them")
