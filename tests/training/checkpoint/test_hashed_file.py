"""What is written piece by piece in the background is on disk in order, with its size and hash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.artifacts.manifest import FileRecord
from skills_pipe.training.checkpoint.hashed_file import HashedFile
from tests.training.checkpoint.test_damage import files_no_larger_than


@given(pieces=st.lists(st.binary(max_size=100), max_size=30), size=st.integers(1, 64))
def test_pieces_of_any_size_are_written_in_order(tmp_path_factory, pieces, size):
    path = tmp_path_factory.mktemp("hashed") / "file"
    with HashedFile(path, piece=size) as file:
        for piece in pieces:
            lent = bytearray(piece)
            file.write(memoryview(lent))
            # The caller uses its buffer again at once.
            lent[:] = bytes(len(lent))
        record = file.record()
    assert path.read_bytes() == b"".join(pieces)
    assert record == FileRecord.of(path)


def test_a_write_that_fails_is_told(tmp_path):
    full = files_no_larger_than(1000)
    with full, HashedFile(tmp_path / "file", piece=64) as file, pytest.raises(OSError, match="File too large"):
        for _ in range(100):
            file.write(bytes(64))
        file.record()
