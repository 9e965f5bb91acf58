"""What a job warns of is whole or absent, and never that of an earlier start."""

import pytest

from skills_pipe.artifacts.names import ENV_WARNINGS
from skills_pipe.artifacts.warnings import publish_warnings, read_warnings


@pytest.fixture
def path(tmp_path, monkeypatch):
    found = tmp_path / "warnings" / "sft-0.json"
    monkeypatch.setenv(ENV_WARNINGS, str(found))
    return found


def test_each_sentence_is_told_once_and_in_order(path):
    publish_warnings(["ä [b]", "a", "ä [b]"])
    assert read_warnings(path) == ("ä [b]", "a")
    assert [each.name for each in path.parent.iterdir()] == ["sft-0.json"]


def test_those_of_an_earlier_start_are_gone(path):
    publish_warnings(["a"])
    publish_warnings([])
    assert not path.exists() and read_warnings(path) == ()


def test_without_a_launcher_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv(ENV_WARNINGS, raising=False)
    monkeypatch.chdir(tmp_path)
    publish_warnings(["a"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", '["a"', '{"a": 1}', "[1]", "null"])
def test_a_damaged_file_warns_of_nothing(tmp_path, text):
    (tmp_path / "warnings.json").write_text(text)
    assert read_warnings(tmp_path / "warnings.json") == ()
