"""Values survive reading and writing exactly, and fingerprints tell pairs of texts apart."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import DataError
from skills_pipe.training.prepare.jsonl import decode, decode_row, encode, fingerprint, read_manifest

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(VALUES)
def test_values_come_back_as_the_standard_library_reads_them(value):
    line = json.dumps(value).encode()
    assert decode(line) == json.loads(line)
    assert json.loads(encode(value)) == json.loads(line)
    assert b"\n" not in encode(value)


@pytest.mark.parametrize("line", [b'{"a": 123456789012345678901234567890}', b"[[-99999999999999999999]]"])
def test_large_integers_keep_every_digit(line):
    assert decode(line) == json.loads(line)
    assert encode(decode(line)).replace(b" ", b"") == line.replace(b" ", b"")
    assert orjson.loads(line) != json.loads(line), "the fast reader alone would round it"


@pytest.mark.parametrize("line", [b"", b"{", b'{"a": NaN}', b'{"a": 1} x', b"\xff"])
def test_what_is_not_json_is_refused(line):
    with pytest.raises(ValueError):
        decode(line)


def test_a_row_is_an_object():
    with pytest.raises(ValueError, match="object was expected, not list"):
        decode_row(b"[1]")


@given(TEXT, TEXT, TEXT, TEXT)
def test_fingerprints_are_equal_for_equal_pairs_only(a, b, c, d):
    assert (fingerprint(a, b) == fingerprint(c, d)) == ((a, b) == (c, d))


def test_fingerprints_see_where_one_text_ends():
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint("1:a", "") != fingerprint("", "1:a")


def test_a_damaged_manifest_names_the_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(DataError, match=r"rows\.jsonl:3"):
        list(read_manifest(path))


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        list(read_manifest(tmp_path / "gone.jsonl"))
