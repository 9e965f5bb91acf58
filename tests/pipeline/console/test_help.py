"""The help, and the frozen list of all options: hyperparameters are keys of the trainer, never new flags."""

import pytest

from skills_pipe.pipeline.cli import main
from skills_pipe.pipeline.console.registry import ENTRIES, GROUPS
from skills_pipe.pipeline.options.declaration import Kind, Option
from tests.pipeline.golden_file import check_golden


@pytest.fixture
def help_of(monkeypatch, capsys):
    def show(name: str, *, width: int = 100) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        assert main([*name.split(), "--help"]) == 0
        return "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()) + "\n"

    return show


def described(option: Option) -> str:
    flags = " ".join(option.on + option.off) if option.kind is not Kind.ARGUMENT else option.metavar
    value = "" if option.kind is Kind.SWITCH else f" {option.metavar}"
    default = "required" if option.required else repr(getattr(option.default, "value", option.default))
    return f"  {flags}{value} = {default}"


def test_the_list_of_options_is_frozen():
    lines = []
    for entry in ENTRIES:
        command = entry.load()
        lines.append(f"ns {entry.name}  ({entry.function})" + ("  ++key=value" if command.takes_extras else ""))
        lines += [described(option) for option in command.all_options]
    check_golden("options.txt", "\n".join(lines) + "\n")


@pytest.mark.parametrize("name", ["", *GROUPS, *(entry.name for entry in ENTRIES)])
def test_the_help_is_as_recorded(name, help_of):
    check_golden(f"help/{name.replace(' ', '-') or 'ns'}.txt", help_of(name))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_narrow_terminals_show_every_option_whole(entry, help_of):
    text = help_of(entry.name, width=80)
    for option in entry.load().all_options:
        assert any(flag in text for flag in (option.on + option.off)) or option.metavar in text
        if option.kind is Kind.VALUE:
            assert f"{option.on[-1]}={option.metavar}" in text, "also what its value may be"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_option_says_what_it_is_for_in_one_sentence(entry):
    for option in entry.load().all_options:
        assert len(option.help.split()) >= 2
        assert not option.help.endswith(".")


def test_names_use_underscores():
    flags = [flag for entry in ENTRIES for option in entry.load().all_options for flag in option.on]
    assert [flag for flag in flags if "-" in flag.removeprefix("--").removeprefix("-")] == []
