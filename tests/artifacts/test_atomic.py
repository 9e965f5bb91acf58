"""Files and folders appear whole or not at all, also when the writer is killed at any moment."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skills_pipe.artifacts.atomic import (
    publish_directory,
    publish_file,
    recover_directory,
    write_json,
    write_text,
)

# Runs `body` with `path`, and kills itself with SIGKILL right before the n-th call of one of the os functions by which
# a write reaches the disk.
_KILLED = """
import os, signal, sys
from pathlib import Path
from skills_pipe.artifacts import atomic
path, moment = Path(sys.argv[1]), int(sys.argv[2])
count = 0
def fatal(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for name in ("fsync", "replace", "rename", "open"):
    setattr(os, name, fatal(getattr(os, name)))
BODY
"""

_WRITE_FILE = "atomic.write_text(path, 'new' * 1000)"
_WRITE_FOLDER = """
with atomic.publish_directory(path) as folder:
    for name in ("a", "b"):
        (folder / name).write_text("new")
"""
_PUBLISH_FILE = """
with atomic.publish_file(path) as draft:
    draft.write_text("new")
"""
_WRITE_IN_PLACE = """
descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
os.write(descriptor, b"new" * 500)
os.fsync(descriptor)
os.write(descriptor, b"new" * 500)
"""


def _run(body: str, path: Path, moment: int) -> int:
    program = _KILLED.replace("BODY", body)
    return subprocess.run([sys.executable, "-c", program, str(path), str(moment)], check=False).returncode


def _moments(body: str, path: Path, prepare) -> list[int]:
    """Run `body` killed before its first step, its second, ... until it ends by itself; yields after each kill."""
    for moment in range(1, 50):
        prepare()
        if _run(body, path, moment) == 0:
            return
        yield moment
    raise AssertionError("the body never came to its end")


def test_a_file_is_old_or_new_whenever_its_writer_is_killed(tmp_path):
    path = tmp_path / "file"
    seen = set()
    for _ in _moments(_WRITE_FILE, path, lambda: path.write_text("old")):
        assert path.read_text() in ("old", "new" * 1000)
        seen.add(path.read_text()[:3])
    assert path.read_text() == "new" * 1000
    assert seen == {"old", "new"}, "the kills did not cover both sides of the rename"


def test_negative_control_a_file_written_in_place_is_found_half_written(tmp_path):
    path = tmp_path / "file"
    halves = [
        path.read_text()
        for _ in _moments(_WRITE_IN_PLACE, path, lambda: path.write_text("old"))
        if path.read_text() not in ("old", "new" * 1000)
    ]
    assert halves


def test_a_folder_is_old_or_new_whenever_its_writer_is_killed(tmp_path):
    path = tmp_path / "folder"

    def prepare():
        with publish_directory(path) as folder:
            (folder / "a").write_text("old")

    seen = set()
    for _ in _moments(_WRITE_FOLDER, path, prepare):
        recover_directory(path)
        contents = {entry.name: entry.read_text() for entry in path.iterdir()}
        assert contents in ({"a": "old"}, {"a": "new", "b": "new"})
        seen.add(contents["a"])
    assert seen == {"old", "new"}


@pytest.mark.parametrize("publish", [publish_file, publish_directory])
def test_an_error_leaves_the_old_one_and_nothing_else(tmp_path, publish):
    path = tmp_path / "output"
    with publish(path) as first:
        (first / "a" if publish is publish_directory else first).write_text("old")
    with pytest.raises(ZeroDivisionError), publish(path) as second:
        (second / "a" if publish is publish_directory else second).write_text("new")
        raise ZeroDivisionError
    assert (path / "a" if path.is_dir() else path).read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["output"]


@pytest.mark.parametrize(
    ("publish", "body"),
    [(publish_directory, _WRITE_FOLDER), (publish_file, _PUBLISH_FILE)],
)
def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path, publish, body):
    path = tmp_path / "output"
    assert _run(body, path, 1) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    at_work = left.with_name(f"{left.name.rpartition('.')[0]}.{os.getppid()}")
    elsewhere = left.with_name(".tmp-output.elsewhere.7")
    other = left.with_name(left.name.replace("output", "output2"))
    for entry in (at_work, elsewhere, other):
        entry.mkdir()

    with publish(path) as draft:
        (draft / "a" if publish is publish_directory else draft).write_text("new")
    assert sorted(tmp_path.iterdir()) == sorted([path, at_work, elsewhere, other])


def test_json_is_the_same_bytes_for_the_same_value(tmp_path):
    write_json(tmp_path / "one", {"b": 1, "a": "é"})
    write_json(tmp_path / "two", {"a": "é", "b": 1})
    assert (
        (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes() == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()
    )


def test_the_mode_of_a_secret_file_holds_from_the_beginning(tmp_path):
    write_text(tmp_path / "secret", "x", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_kill_means_kill():
    """The tests above rest on this: a moment that is reached really ends the writer."""
    assert _run("os.fsync(os.open('/dev/null', os.O_RDONLY))", Path("/nowhere"), 1) == -signal.SIGKILL
