"""The name of code: the same files have the same name, and any other file, mode or name another."""

import os
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skills_pipe.pipeline.code.digest import cache_folder, digests
from skills_pipe.pipeline.code.tree import working_tree


def name(repository, *, cache=None):
    return digests(working_tree(repository.root), cache).name


def aged(path, seconds=100):
    """The file as if it had not been changed for a while; its time of change stays now."""
    os.utime(path, (time.time() - seconds,) * 2)
    return path


CHANGES = {
    "content": lambda root: (root / "a.py").write_text("y"),
    "name": lambda root: (root / "a.py").rename(root / "b.py"),
    "mode": lambda root: (root / "a.py").chmod(0o755),
    "new": lambda root: (root / "n.py").write_text(""),
    "gone": lambda root: (root / "a.py").unlink(),
    "link": lambda root: [(root / "a.py").unlink(), (root / "a.py").symlink_to("x")],
    "place": lambda root: [(root / "d").mkdir(), (root / "a.py").rename(root / "d" / "a.py")],
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_gives_another_name(repository, change):
    repository.write("a.py", "x")
    before = name(repository)
    assert name(repository) == before
    CHANGES[change](repository.root)
    assert name(repository) != before


def test_times_and_owners_of_files_and_commits_change_nothing(repository, tmp_path):
    repository.write("a.py", "x")
    before = name(repository)
    aged(repository.root / "a.py")
    repository.commit()
    assert name(repository) == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(texts=st.lists(st.binary(max_size=8), min_size=2, max_size=6))
def test_with_a_cache_it_is_the_same_as_without(repository, texts):
    for text in texts:
        (repository.root / "a.py").write_bytes(text)
        assert name(repository, cache=cache_folder()) == name(repository)


def test_a_file_that_changed_a_moment_ago_is_not_trusted(repository, monkeypatch):
    """Two changes within one tick of the clock, of the same size: time, size and inode stay the same."""
    path = repository.write("a.py", "x")
    first = name(repository, cache=cache_folder())
    times = path.stat()
    path.write_text("y")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert name(repository, cache=cache_folder()) != first


def test_the_cache_spares_reading(repository, monkeypatch):
    aged(repository.write("a.py", "x"))
    later = time.time() + 100
    monkeypatch.setattr(time, "time", lambda: later)
    tree = working_tree(repository.root)
    known = digests(tree, cache_folder())
    (repository.root / "a.py").unlink()  # who reads it now fails
    assert digests(tree, cache_folder()) == known
    with pytest.raises(FileNotFoundError):
        digests(tree, None)


def test_a_damaged_cache_is_made_anew(repository):
    repository.write("a.py")
    expected = name(repository, cache=cache_folder())
    for file in cache_folder().iterdir():
        file.write_text("[1")
    assert name(repository, cache=cache_folder()) == expected


def test_a_cache_that_cannot_be_written_is_done_without(repository, tmp_path):
    repository.write("a.py")
    (tmp_path / "file").write_text("")
    assert name(repository, cache=tmp_path / "file" / "cache") == name(repository)
