"""Options of commands: one field of a frozen dataclass declares the flag, the Python keyword, the help and the type.

    @dataclass(frozen=True, kw_only=True)
    class ConvertOptions(RunOptions):
        input_model: str = option(help="folder with checkpoints/step_N")
        dtype: Dtype = option(Dtype.BF16, help="precision of the weights")
        force: bool = switch(help="convert again")

A field without a default is required. Groups of options that commands share are base classes; the first line of a
group's docstring is the heading above its options in the help.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

from skills_pipe.errors import OptionError, UserError, did_you_mean
from skills_pipe.pipeline.options.coercion import coerce, describe

_METADATA: Final = "skills_pipe.option"
REQUIRED: Final = dataclasses.MISSING

OptionsT = TypeVar("OptionsT")


class Kind(str, Enum):
    """How an option is written on the command line."""

    VALUE = "value"
    """``--name=value`` or ``--name value``."""
    SWITCH = "switch"
    """``--name``, without a value."""
    ARGUMENT = "argument"
    """A word without dashes."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What a field says about its option, beside its type and default."""

    kind: Kind
    help: str
    metavar: str | None = None
    separator: str | None = None
    parse: Callable[[Any], Any] | None = None
    env: str | None = None
    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    verbatim: bool = False


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a command.

    Attributes:
        name: field and Python keyword; ``--name`` on the command line.
        annotation: type of the value.
        default: ``REQUIRED`` when there is none.
        panel: heading in the help.
        declaration: the rest.
    """

    name: str
    annotation: Any
    default: Any
    panel: str
    declaration: Declaration

    @property
    def kind(self) -> Kind:
        """How it is written."""
        return self.declaration.kind

    @property
    def help(self) -> str:
        """What it is for."""
        return self.declaration.help

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is REQUIRED

    @property
    def repeats(self) -> bool:
        """Whether it can be given several times."""
        return typing.get_origin(self.annotation) is tuple

    @property
    def spelling(self) -> str:
        """How messages call it: ``--num_gpus``, ``EXPNAME``."""
        return self.metavar if self.kind is Kind.ARGUMENT else (self.on + self.off)[0]

    @property
    def on(self) -> tuple[str, ...]:
        """Flags that give it, or set a switch."""
        return self.declaration.on or (() if self.declaration.off else (f"--{self.name}",))

    @property
    def off(self) -> tuple[str, ...]:
        """Flags that clear a switch."""
        return self.declaration.off

    @property
    def metavar(self) -> str:
        """What stands for the value in the help."""
        if self.declaration.metavar:
            return self.declaration.metavar
        return self.name.upper() if self.kind is Kind.ARGUMENT else describe(self.annotation)


def option(
    default: Any = REQUIRED,
    *,
    help: str,
    metavar: str | None = None,
    separator: str | None = None,
    parse: Callable[[Any], Any] | None = None,
    env: str | None = None,
) -> Any:
    """Declare a field as ``--name=value``.

    Args:
        default: value when it is not given; without one the option is required.
        help: one sentence without a full stop.
        metavar: what stands for the value in the help; by default the type tells.
        separator: splits one text into the items of a tuple.
        parse: makes the value out of what was given, in place of the type.
        env: environment variable that gives the value when the option does not.
    """
    declaration = Declaration(kind=Kind.VALUE, help=help, metavar=metavar, separator=separator, parse=parse, env=env)
    return dataclasses.field(default=default, metadata={_METADATA: declaration})


def switch(default: bool = False, *, help: str, on: tuple[str, ...] = (), off: tuple[str, ...] = ()) -> Any:
    """Declare a field as a flag without a value: ``--name``, or the names in ``on`` and ``off``."""
    declaration = Declaration(kind=Kind.SWITCH, help=help, on=on, off=off)
    return dataclasses.field(default=default, metadata={_METADATA: declaration})


def argument(default: Any = REQUIRED, *, help: str, metavar: str | None = None, verbatim: bool = False) -> Any:
    """Declare a field as a word without dashes; a tuple takes all that are left.

    Args:
        default: value when it is not given; without one it is required.
        help: one sentence without a full stop.
        metavar: its name in the help.
        verbatim: it takes everything from the first word on, flags included.
    """
    declaration = Declaration(kind=Kind.ARGUMENT, help=help, metavar=metavar, verbatim=verbatim)
    return dataclasses.field(default=default, metadata={_METADATA: declaration})


def options_of(options_class: type) -> tuple[Option, ...]:
    """All options of a class: its own first, then those of its groups, each in the order of declaration."""
    hints = typing.get_type_hints(options_class)
    fields = {field.name: field for field in dataclasses.fields(options_class)}
    owners = [owner for owner in options_class.__mro__ if dataclasses.is_dataclass(owner)]
    return tuple(
        Option(
            name=name,
            annotation=hints[name],
            default=fields[name].default,
            panel=_heading(owner),
            declaration=fields[name].metadata[_METADATA],
        )
        for owner in owners
        for name in inspect.get_annotations(owner)
        if _owner_of(name, owners) is owner and name in fields
    )


def build(options_class: type[OptionsT], values: Mapping[str, Any]) -> OptionsT:
    """An instance from what was given on the command line or as Python keywords, checked and converted.

    Raises:
        OptionError: unknown or missing options, or values of the wrong type; all of them are told.
    """
    options = options_of(options_class)
    problems = [_unknown(name, options) for name in values if name not in {option.name for option in options}]
    built: dict[str, Any] = {}
    for option in options:
        value = values.get(option.name, REQUIRED)
        if value is REQUIRED and option.declaration.env:
            value = os.environ.get(option.declaration.env, REQUIRED)
        if value is REQUIRED or (value is None and not option.required):
            continue
        try:
            built[option.name] = _convert(option, value)
        except UserError as error:
            problems.append(OptionError(error.what, where=option.spelling, fix=error.fix))
    missing = [o.spelling for o in options if o.required and o.name not in values and o.name not in built]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        problems.append(OptionError(f"{', '.join(missing)} {verb} missing"))
    if problems:
        raise join_problems(problems)
    return options_class(**built)


def join_problems(problems: list[OptionError]) -> OptionError:
    """One error that tells all of ``problems`` in a line."""
    if len(problems) == 1:
        return problems[0]
    return OptionError("; ".join(str(problem) for problem in problems))


def _convert(option: Option, value: Any) -> Any:
    if option.declaration.parse is not None:
        return option.declaration.parse(value)
    return coerce(value, option.annotation, separator=option.declaration.separator)


def _unknown(name: str, options: tuple[Option, ...]) -> OptionError:
    return OptionError(f"there is no option {name!r}", fix=did_you_mean(name, [option.name for option in options]))


def _heading(owner: type) -> str:
    return (inspect.getdoc(owner) or owner.__name__).splitlines()[0].rstrip(".")


def _owner_of(name: str, owners: list[type]) -> type:
    """The class nearest to the command that declares the option: it may override that of a group."""
    return next(owner for owner in owners if name in inspect.get_annotations(owner))
