"""A git repository of the tests, and a cache folder of their own."""

import subprocess

import pytest


class Repository:
    """A git repository in a folder; ``git`` runs there."""

    def __init__(self, root):
        self.root = root
        root.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *words):
        names = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "protocol.file.allow=always")
        ended = subprocess.run(["git", *names, *words], cwd=self.root, capture_output=True, check=True)
        return ended.stdout.decode(errors="surrogateescape")

    def write(self, path, text="x"):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)
        return self.root / path

    def commit(self):
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "work")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path / "my project")
