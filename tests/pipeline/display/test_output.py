"""Tables and times as words that a pipe can take."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.table import Table

from skills_pipe.pipeline.display.output import console_or_stdout, duration, print_table
from tests.pipeline.display.screen import console, shown


def table() -> Table:
    made = Table("run", "stages", box=None, pad_edge=False)
    made.add_row("a", "done")
    made.add_row("longer", "command succeeded, and more")
    return made


def test_a_table_has_no_blanks_at_the_ends_of_its_lines():
    out = console(width=1000)
    print_table(table(), out)
    assert shown(out) == "run     stages\na       done\nlonger  command succeeded, and more\n"
    control = console(width=1000)
    control.print(table())
    assert "done  " in shown(control), "rich fills them up"


def test_a_table_keeps_its_colours_in_a_terminal():
    out = console(width=80, force_terminal=True, color_system="standard")
    print_table(table(), out)
    assert "\x1b[1m" in shown(out), "its head is bold"


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, ""), (4.24, "4.2s"), (205, "3:25"), (7405, "2:03:25"), (93780, "1-02:03")]
)
def test_times_are_as_long_as_they_have_to_be(seconds, words):
    assert duration(seconds) == words


def test_a_word_between_colons_in_a_name_is_no_picture(capsys):
    Console(highlight=False).print("job:key:1")  # what rich makes of it by itself
    assert capsys.readouterr().out != "job:key:1\n"
    console_or_stdout(None).print("job:key:1")
    assert capsys.readouterr().out == "job:key:1\n"
