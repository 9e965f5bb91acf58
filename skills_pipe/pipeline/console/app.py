"""``ns`` as a Typer application: its commands are listed here, and imported when they are called or completed."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from skills_pipe import __version__
from skills_pipe.errors import OptionError, did_you_mean
from skills_pipe.pipeline.console.command import CommandLine
from skills_pipe.pipeline.console.registry import ENTRIES, GROUPS

_SETTINGS = {
    "help_option_names": ["--help", "-h"],
    # Typer loads pydantic to convert a switch that is not given, unless it is False by default.
    "default_map": {"help": False, "install_completion": False, "show_completion": False},
}


def application() -> TyperGroup:
    """``ns`` with all of its commands."""
    app = typer.Typer(name="ns", cls=_Group, context_settings=_SETTINGS)
    app.callback()(_root)
    root = cast(_Group, typer.main.get_command(app))
    groups = {"": root}
    for name, text in GROUPS.items():
        groups[name] = _Group(name=name, help=text, context_settings=_SETTINGS)
        root.add_command(groups[name])
    for entry in ENTRIES:
        group, _, name = entry.name.rpartition(" ")
        groups[group].add_command(_Command(name, help=entry.help, context_settings={"obj": entry.load}))
    return root


class _Group(TyperGroup):
    """Commands behind ``ns``, or behind a word like ``nemo_rl``; without a command it shows its help."""

    ignore_unknown_options = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise _no_command(args[0], [*ctx.command_path.split()[1:], args[0]], known=[*self.commands])
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _write_help(ctx, formatter)


class _Command(CommandLine):
    """A command with its options in sections, long names whole."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        _write_help(ctx, formatter)


def _write_help(ctx: Any, formatter: Any) -> None:
    from skills_pipe.pipeline.console.help import help_text  # rich, which only the help needs here

    formatter.write(help_text(ctx.command_path.split()[1:]))


def _no_command(word: str, path: list[str], *, known: list[str]) -> OptionError:
    if word.startswith("-"):
        name = word.partition("=")[0]
        return OptionError(f"there is no option {name} before the command", fix="write options behind it")
    name = " ".join(path)
    longer = [f"did you mean {entry.name!r}?" for entry in ENTRIES if entry.name.split()[-1] == word]
    advice = [*longer, did_you_mean(word, known), did_you_mean(name, [entry.name for entry in ENTRIES])]
    return OptionError(f"there is no command {name!r}", fix=next(filter(None, advice), "`ns --help` lists all of them"))


def _show_version(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        typer.echo(__version__)
        raise typer.Exit


def _root(version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_show_version)] = False) -> None:
    """Nothing comes before the command."""
