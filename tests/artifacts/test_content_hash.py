"""The hash of a file's contents says whether they are what was written."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.artifacts import content_hash
from skills_pipe.artifacts.content_hash import ContentHasher, has_hash, hash_file
from skills_pipe.errors import CheckpointError


def test_it_is_xxh3_with_128_bits(tmp_path):
    """The published value of no bytes, as ``xxhsum -H128`` prints it."""
    (tmp_path / "empty").touch()
    assert hash_file(tmp_path / "empty") == "xxh3:99aa06d3014798d86001c324468d497f"


@given(parts=st.lists(st.binary(max_size=300), max_size=5))
def test_bytes_in_parts_have_the_hash_of_the_file_they_make(tmp_path_factory, parts):
    hasher = ContentHasher()
    for part in parts:
        hasher.update(part)
    path = tmp_path_factory.mktemp("hash") / "file"
    path.write_bytes(b"".join(parts))
    assert hasher.text() == hash_file(path)
    assert has_hash(path, hasher.text())


@given(data=st.binary(min_size=1, max_size=300), place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_flipped_bit_is_seen_by_either_method(tmp_path_factory, data, place, bit):
    path = tmp_path_factory.mktemp("hash") / "file"
    path.write_bytes(data)
    recorded = hash_file(path), hashlib.sha256(data).hexdigest()
    assert all(has_hash(path, each) for each in recorded)
    harmed = bytearray(data)
    harmed[place % len(data)] ^= 1 << bit
    path.write_bytes(harmed)
    assert not any(has_hash(path, each) for each in recorded)


def test_where_xxhash_is_not_installed_sha256_is_written_and_checked(tmp_path, monkeypatch):
    """As in jobs whose image was made before it was asked for."""
    path = tmp_path / "file"
    path.write_bytes(b"contents")
    of_before = hash_file(path)
    monkeypatch.setattr(content_hash, "xxhash", None)
    hasher = ContentHasher()
    hasher.update(b"contents")
    assert hasher.text() == hash_file(path) == hashlib.sha256(b"contents").hexdigest()
    assert has_hash(path, hasher.text())
    with pytest.raises(CheckpointError, match=r"needs xxhash.*make the image anew"):
        has_hash(path, of_before)
