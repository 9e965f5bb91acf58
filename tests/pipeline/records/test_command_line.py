"""How a run was asked for stands in its folder."""

import shlex
from pathlib import Path

from skills_pipe import __version__
from skills_pipe.pipeline.records.command_line import read_command_line, write_command_line


def test_what_was_written_is_read_back_and_can_be_pasted_into_a_shell(tmp_path):
    words = ("run_cmd", "--", "echo", "it's", "a b")
    write_command_line(words, tmp_path)
    found = read_command_line(tmp_path)
    assert (found.words, found.folder, found.version) == (words, str(Path.cwd()), __version__)
    assert shlex.split(str(found)) == ["ns", *words]


def test_without_a_record_there_is_no_command(tmp_path):
    assert read_command_line(tmp_path) is None
