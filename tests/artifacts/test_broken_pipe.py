"""Output into a pipe whose reader leaves early, with real processes and a real pipe."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from skills_pipe.artifacts.broken_pipe import EXIT_CODE

MANY = "import sys\nfor n in range(100_000): sys.stdout.write('a line of text\\n')\nreturn 0"
RICH = "from rich.console import Console\nc = Console()\nfor n in range(1000): c.print('a line')\nreturn 0"
ONE = "print('one line, still in the buffer when the program ends')\nreturn 0"
OTHER = "import os\nr, w = os.pipe()\nos.close(r)\nos.write(w, b'x')"


def piped(body: str, *, guarded: bool = True, reads: bool = False) -> tuple[int, str]:
    """Exit code and complaints of a program whose output nobody reads, or everybody."""
    indented = body.replace("\n", "\n    ")
    end = "until_reader_leaves(program)" if guarded else "program()"
    code = (
        f"import sys\nfrom skills_pipe.artifacts.broken_pipe import until_reader_leaves\n"
        f"def program():\n    {indented}\nsys.exit({end})"
    )
    reader, writer = os.pipe()
    if not reads:
        os.close(reader)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    if reads:
        with open(reader) as whole:
            whole.read()
    return process.wait(), (process.communicate()[1])


@pytest.mark.parametrize("body", [MANY, RICH, ONE], ids=["many lines", "by rich", "at the end"])
def test_a_program_without_a_reader_ends_without_a_word(body):
    assert piped(body) == (EXIT_CODE, "")
    assert piped(body, reads=True) == (0, "")


def test_without_the_guard_there_is_a_complaint():
    code, complaint = piped(MANY, guarded=False)
    assert code != EXIT_CODE and "BrokenPipeError" in complaint


def test_a_fault_in_another_pipe_keeps_its_traceback():
    code, complaint = piped(OTHER, reads=True)
    assert code == 1 and "BrokenPipeError" in complaint


def test_other_exits_stay_as_they_are():
    assert piped("import sys\nsys.exit(7)") == (7, "")
    assert piped("print('a line')\nimport sys\nsys.exit(7)", reads=True) == (7, "")
