"""The first rows of data: the launcher finds what the trainer would, as far as it sees."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skills_pipe.artifacts.rows import RowKeys
from skills_pipe.pipeline.checks.questions import HEAD_BYTES
from skills_pipe.pipeline.checks.rows import faults_in
from skills_pipe.training.data.rows import BadRow
from skills_pipe.training.data.sources import DataSource, read_rows

KEYS = RowKeys()
GOOD = b'{"input": "a", "output": "b"}\n'
CHAT = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD + CHAT, []),
        (b"", ["the file is empty"]),
        (b"\n \n", ["the file is empty"]),
        (GOOD + b"{broken\n", ["line 2: not JSON (Expecting property name"]),
        (b"[1, 2]\n", []),
        (b'"text"\n', ["line 1: not a JSON object"]),
        (b'{"inputs": "a", "output": "b"}\n', ["line 1: neither 'messages' nor 'input' with 'output'"]),
        (b'{"messages": [{"role": "user", "content": "a"}]}\n', ["line 1: the last message comes from 'user'"]),
        (b'{"input": 1, "output": "b"}\n', ["line 1: the content of message 1 is int"]),
        (b"\xff\xfe\n", ["line 1: not UTF-8"]),
        (b"\xef\xbb\xbf" + GOOD, []),
        (GOOD + b"\n\n" + b"{}\n", ["line 4: neither"]),
    ],
)
def test_what_is_wrong_with_the_first_rows(text, told):
    found = faults_in(text, KEYS, whole=True)
    assert len(found) == len(told)
    assert all(fault.startswith(start) for fault, start in zip(found, told, strict=True))


def test_keys_can_have_other_names():
    row = b'{"question": "a", "answer": "b"}\n'
    assert faults_in(row, KEYS, whole=True) != []
    assert faults_in(row, RowKeys(input_key="question", output_key="answer"), whole=True) == []


def test_a_row_that_is_cut_off_is_not_judged():
    assert faults_in(GOOD + b'{"input": "a', KEYS, whole=False) == []
    assert faults_in(GOOD + b'{"input": "a', KEYS, whole=True) != [], "at the end of a file it is a broken row"


def test_a_first_row_longer_than_what_is_seen_is_not_judged():
    assert faults_in(b'{"input": "' + b"a" * HEAD_BYTES, KEYS, whole=False) == []


values = st.none() | st.text(max_size=3) | st.integers() | st.lists(st.text(max_size=2), max_size=2)
messages = st.lists(
    st.fixed_dictionaries({}, optional={"role": st.sampled_from(["user", "assistant", 3]), "content": values}),
    max_size=3,
)
rows = st.fixed_dictionaries(
    {}, optional={"input": values, "output": values, "messages": messages | values, "tools": values, "id": values}
)


@settings(deadline=None)
@given(st.lists(rows, min_size=1, max_size=5))
def test_it_agrees_with_the_trainer(tmp_path_factory, data):
    text = "".join(json.dumps(row) + "\n" for row in data).encode()
    path = tmp_path_factory.mktemp("rows") / "data.jsonl"
    path.write_bytes(text)
    bad = [row for row in read_rows(DataSource(path=path)) if isinstance(row, BadRow)]
    trainer = [f"line {row.where.rpartition(':')[2]}: {row.what}" for row in bad]
    assert faults_in(text, KEYS, whole=True) == trainer
