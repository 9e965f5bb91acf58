"""Lines of JSON by number: the same rows wherever reading starts."""

import gzip
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import DataError
from skills_pipe.training.data.records import line_index as index_module
from skills_pipe.training.data.records.line_index import line_index
from skills_pipe.training.data.records.lines import parse_line
from skills_pipe.training.data.records.opening import open_records
from skills_pipe.training.data.rows import BadRow

LINES = st.lists(
    st.sampled_from([b'{"a": 1}', b"2", b"", b" ", b"\t \r", b'  "x"', b'"' + b"y" * 40 + b'"']), max_size=30
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLS_PIPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path, lines, end=b"\n"):
    path.write_bytes(b"\n".join(lines) + (end if lines else b""))
    return path


@given(LINES, st.integers(0, 30), st.integers(0, 30), st.sampled_from([b"", b"\n"]), st.integers(1, 50))
def test_any_part_is_a_part_of_the_whole(tmp_path_factory, lines, start, count, end, chunk):
    path = write(tmp_path_factory.mktemp("rows") / "rows.jsonl", lines, end)
    expected = [(f"{path}:{n}", json.loads(line)) for n, line in enumerate(lines, start=1) if line.strip()]
    with pytest.MonkeyPatch.context() as patch:
        # Lines then lie across the borders of what is read at a time, and the index is kept.
        patch.setattr(index_module, "_CHUNK", chunk)
        patch.setattr(index_module, "_WORTH_KEEPING", 0)
        patch.setenv("SKILLS_PIPE_CACHE", str(path.parent))
        records = open_records(path)
        assert list(records.read()) == expected
        assert list(records.read(start, start + count)) == expected[start : start + count]
        assert list(records.read(start)) == expected[start:]
        assert len(records) == len(expected)


def test_an_index_is_kept_until_the_file_changes(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(index_module, "_WORTH_KEEPING", 0)
    path = write(tmp_path / "rows.jsonl", [b"1", b"2"])
    assert len(line_index(path)) == 2
    (kept,) = (cache / "line-index").iterdir()
    before = kept.stat().st_mtime_ns
    assert len(line_index(path)) == 2
    assert kept.stat().st_mtime_ns == before
    write(path, [b"1", b"2", b"3"])
    assert len(line_index(path)) == 3
    assert len(list((cache / "line-index").iterdir())) == 2


def test_a_cache_that_cannot_be_written_is_no_obstacle(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(index_module, "_WORTH_KEEPING", 0)
    cache.write_text("a file where the folder would be")
    assert len(line_index(write(tmp_path / "rows.jsonl", [b"1", b"", b"2"]))) == 2


def test_nothing_is_put_beside_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "_WORTH_KEEPING", 0)
    folder = tmp_path / "data"
    folder.mkdir()
    assert len(open_records(write(folder / "rows.jsonl", [b"1"]))) == 1
    assert [file.name for file in folder.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    "text",
    [
        "123456789012345678901234567890",
        "18446744073709551616",
        "-9223372036854775809",
        "0.1",
        "1e400",
        '"\\ud800"',
        "[]",
    ],
)
def test_values_are_what_pythons_parser_makes_of_them(text):
    assert parse_line(text.encode(), "here") == json.loads(text)
    assert type(parse_line(text.encode(), "here")) is type(json.loads(text))


def test_not_a_number_is_a_number_here():
    assert math.isnan(parse_line(b"NaN", "here"))


def test_a_broken_line_is_a_bad_row_with_its_number(tmp_path):
    path = write(tmp_path / "rows.jsonl", [b"1", b"", b"{", b"2"])
    rows = list(open_records(path).read())
    assert [where for where, _ in rows] == [f"{path}:{n}" for n in (1, 3, 4)]
    assert isinstance(rows[1][1], BadRow)
    assert rows[1][1].what.startswith("not JSON")


def test_compressed_lines_are_read_alike(tmp_path):
    lines = [b"1", b"", b'{"a": "\xc3\xa9"}', b"3"]
    plain, packed = write(tmp_path / "rows.jsonl", lines), tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for start, stop in ((0, None), (1, None), (1, 2), (2, 2)):
        found = list(open_records(packed).read(start, stop))
        assert [value for _, value in found] == [value for _, value in open_records(plain).read(start, stop)]
    assert len(open_records(packed)) == 3
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be unpacked"):
        list(open_records(packed).read())
