"""A command of the launcher: its options and what it does with them, the same for the terminal and for Python.

Typer parses the words of both; values stay texts until
:func:`skills_pipe.pipeline.options.declaration.build` converts them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.console.argv import divide, misplaced
from skills_pipe.pipeline.options.declaration import Kind, Option, build, join_problems, options_of


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        options: dataclass with the fields that :mod:`skills_pipe.pipeline.options.declaration` describes.
        run: takes an instance of it and the words for the inner program; what it returns is what the Python function
            returns, and when that is a number, the exit code of the command.
        takes_extras: whether there is an inner program that takes ``++key=value``.
        elsewhere: what to do in the place of an option that it does not have; None where that is not known.
    """

    options: type
    run: Callable[[Any, tuple[str, ...]], Any]
    takes_extras: bool = False
    elsewhere: Callable[[str], str | None] = lambda _: None

    @property
    def all_options(self) -> tuple[Option, ...]:
        """Its options in the order of the help."""
        return options_of(self.options)

    def call(self, words: Sequence[str], keywords: Mapping[str, Any]) -> Any:
        """Run it with words of a command line, Python keywords, or both; see :meth:`parse`."""
        return self.run(*self.parse(words, keywords))

    def parse(self, words: Sequence[str], keywords: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
        """Its options, and the words for the inner program.

        Raises:
            OptionError: something is unknown, missing, of a wrong type or given twice.
        """
        line = CommandLine(None, context_settings={"obj": lambda: self}, add_help_option=False)
        context = line.make_context(None, list(words))
        twice = sorted(context.params.keys() & keywords.keys())
        if twice:
            raise OptionError(f"{', '.join(twice)} is given both as a keyword and in the arguments", fix="keep one")
        return build(self.options, {**context.params, **keywords}), tuple(context.args)


class CommandLine(TyperCommand):
    """A command as Typer knows it.

    ``obj`` of its context loads the command, when its options are first asked for. After parsing, the context holds in
    ``params`` the options that were given, and in ``args`` the words for the inner program.
    """

    ignore_unknown_options = True
    allow_extra_args = True

    def get_params(self, ctx: Any) -> list[Any]:
        """The options of the command, and ``--help``."""
        if not self.params:
            self.params = _declared(ctx.obj().all_options)
        return super().get_params(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Sort the words. Typer's parser does it, without Typer's conversion, which would load pydantic.

        Raises:
            OptionError: unknown options, missing values, words too many; all of them are told.
        """
        command: Command = ctx.obj()
        options, takes_extras = command.all_options, command.takes_extras
        words = divide(args, options, takes_extras=takes_extras)
        if ctx.resilient_parsing:  # a shell asks what could follow
            return super().parse_args(ctx, words.own)
        given, left, _ = self.make_parser(ctx).parse_args(words.own)
        if given.pop("help", False):
            typer.echo(ctx.get_help())
            raise typer.Exit
        ctx.params = {name: value for name, value in given.items() if value is not None}
        plain = [ctx.params.get(option.name, ()) for option in options if option.kind is Kind.ARGUMENT]
        plain = [word for value in plain for word in ([value] if isinstance(value, str) else value)]
        problems = words.problems + misplaced(
            [*plain, *left], options, takes_extras=takes_extras, elsewhere=command.elsewhere
        )
        if problems:
            raise join_problems(problems)
        if words.verbatim:
            ctx.params |= {option.name: words.verbatim for option in options if option.declaration.verbatim}
        ctx.args = words.extras
        return words.extras

    def invoke(self, ctx: Any) -> Any:
        """Run the command with what was given."""
        command: Command = ctx.obj()
        return command.run(build(command.options, ctx.params), tuple(ctx.args))


def _declared(options: Sequence[Option]) -> list[Any]:
    """The parameters that Typer makes of options, by a function that has them in its signature."""

    def function() -> None:
        """Never called."""

    parameters = [_parameter(option) for option in options]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return typer.main.get_command(app).params


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = bool if option.kind is Kind.SWITCH else list[str] if option.repeats else str
    if option.kind is Kind.ARGUMENT:
        info = typer.Argument(help=option.help)
    else:
        info = typer.Option(*option.on, *(f" /{flag}" for flag in option.off), help=option.help)
    annotation: Any = Annotated[kind | None, info]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
