"""The commands as a Typer application: shells complete their words by it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from skills_pipe.pipeline.options import Kind, Option
from skills_pipe.pipeline.registry import ENTRIES, GROUPS, Entry


def complete() -> None:
    """Answer a shell that asks for completions, or install or show the script by which it asks."""
    typer_app()(prog_name="ns")


def typer_app() -> typer.Typer:
    """All commands with their options; none of them does anything."""
    app = typer.Typer(name="ns", add_completion=True)
    app.callback()(_root)
    groups = {"": app}
    for name, text in GROUPS.items():
        groups[name] = typer.Typer(help=text)
        app.add_typer(groups[name], name=name)
    for entry in ENTRIES:
        group, _, name = entry.name.rpartition(" ")
        groups[group].command(name=name, help=entry.help)(_function(entry))
    return app


def _root() -> None:
    """Nothing comes before the command."""


def _function(entry: Entry) -> Callable[..., None]:
    """A function whose signature declares the options of a command."""

    def function(**values: Any) -> None:
        """Never called."""

    parameters = [_parameter(option) for option in entry.load().all_options]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def _parameter(option: Option) -> inspect.Parameter:
    kind: Any = bool if option.kind is Kind.SWITCH else list[str] if option.repeats else str
    flags = option.on + option.off
    info = typer.Argument(help=option.help) if option.kind is Kind.ARGUMENT else typer.Option(*flags, help=option.help)
    default = False if option.kind is Kind.SWITCH else None
    annotation: Any = Annotated[kind, info] if option.kind is Kind.SWITCH else Annotated[kind | None, info]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
