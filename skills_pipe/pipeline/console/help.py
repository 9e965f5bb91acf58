"""The help of ``ns`` and of its commands, made of the declarations of their options."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from skills_pipe import __doc__ as about
from skills_pipe.pipeline.console.registry import ENTRIES, GROUPS, Entry
from skills_pipe.pipeline.options.declaration import Kind, Option

Row = tuple[str, Text]
_WIDEST = 38
"""Columns that names may take of a terminal."""


def help_text(words: list[str]) -> str:
    """The help of ``ns`` itself, of a group (``nemo_rl``) or of a command (``nemo_rl sft``), for this terminal."""
    entry = next((entry for entry in ENTRIES if entry.name.split() == words), None)
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(_of_command(entry) if entry else _of_group(words[0]) if words else _of_all())
    return captured.get()


def _of_all() -> RenderableType:
    rows: list[Row] = [(entry.name, Text(entry.help)) for entry in ENTRIES]
    general = [
        ("COMMAND --help", Text("List the options of a command.")),
        ("--version", Text("Show the version.")),
        ("--install-completion", Text("Let the shell complete commands and options.")),
        ("--show-completion", Text("Show what that would install.")),
    ]
    return _page(
        "ns COMMAND [options] [++key=value ...]",
        (about or "").split(":")[0] + ".",
        [("Commands", rows), ("General", general)],
    )


def _of_group(group: str) -> RenderableType:
    rows = [(entry.name, Text(entry.help)) for entry in ENTRIES if entry.name.startswith(f"{group} ")]
    return _page(f"ns {group} COMMAND [options]", GROUPS[group], [("Commands", rows)])


def _of_command(entry: Entry) -> RenderableType:
    command = entry.load()
    arguments = [option for option in command.all_options if option.kind is Kind.ARGUMENT]
    words = "".join(f" {_argument_usage(option)}" for option in arguments)
    extras = " [++key=value ...]" if command.takes_extras else ""
    panels = {option.panel: None for option in command.all_options}
    sections = [
        (panel, [(_spelling(option), _text(option)) for option in command.all_options if option.panel == panel])
        for panel in panels
    ]
    return _page(f"ns {entry.name} [options]{words}{extras}", entry.help, sections)


def _page(usage: str, about: str, sections: Iterable[tuple[str, list[Row]]]) -> RenderableType:
    parts: list[RenderableType] = [Text.assemble(("Usage: ", "bold"), usage), Text(""), Text(about)]
    width = min(_WIDEST, max(len(name) for _, rows in sections for name, _ in rows))
    for title, rows in sections:
        body = [part for name, text in rows for part in _row(name, text, width)]
        parts += [Text(f"\n{title}", style="bold"), Padding(Group(*body), (0, 0, 0, 2))]
    return Group(*parts)


def _row(name: str, text: Text, width: int) -> list[RenderableType]:
    """A name beside its text; one that is too long for its column stands above it, whole."""
    table = Table.grid(padding=(0, 2))
    table.add_column(width=width, no_wrap=True, style="cyan")
    table.add_column()
    if len(name) <= width:
        table.add_row(Text(name), text)
        return [table]
    table.add_row(Text(""), text)
    return [Text(name, style="cyan"), table]


def _spelling(option: Option) -> str:
    """How an option is written; of a switch that is on by default, the flags that clear it."""
    if option.kind is Kind.ARGUMENT:
        return option.metavar
    if option.kind is Kind.SWITCH:
        return ", ".join(option.off if option.default and option.off else option.on)
    return f"{', '.join(option.on)}={option.metavar}"


def _text(option: Option) -> Text:
    text = Text(f"{option.help[0].upper()}{option.help[1:]}.")
    if option.required:
        text.append(" Required.", style="red")
    if option.kind is not Kind.SWITCH and not option.required and option.default not in (None, (), ""):
        text.append(f" [{_shown(option.default)}]", style="dim")
    if option.declaration.env:
        text.append(f" [${option.declaration.env}]", style="dim")
    return text


def _shown(default: Any) -> str:
    if isinstance(default, tuple):
        return ",".join(_shown(item) for item in default)
    return str(default.value if isinstance(default, Enum) else default)


def _argument_usage(option: Option) -> str:
    word = f"{option.metavar} ..." if option.repeats else option.metavar
    return word if option.required else f"[{word}]"
