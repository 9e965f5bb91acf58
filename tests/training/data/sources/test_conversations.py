import json
import re

import pytest

from skills_pipe.errors import DataError
from skills_pipe.training.data.rows import BadRow, Conversation
from skills_pipe.training.data.sources import DataSource, first_form, read_rows
from skills_pipe.training.data.sources.conversations import Conversations
from tests.training.data.golden import FOLDER

RECORDED = [
    case
    for case in json.loads((FOLDER / "datasets.json").read_text())["loading"]
    if case["use_preserving_dataset"] and "rows" in case
]


UNIFIED = [
    case
    for case in json.loads((FOLDER / "datasets.json").read_text())["loading"]
    if not case["use_preserving_dataset"] and "rows" in case
]


def write(folder, *lines, name="rows.jsonl"):
    path = folder / name
    path.write_bytes(
        b"".join(line if isinstance(line, bytes) else (json.dumps(line) + "\n").encode() for line in lines)
    )
    return path


def read(path, **keys):
    return list(read_rows(DataSource(path=path, format=Conversations(**keys))))


def without_second_system(messages):
    """NeMo RL puts the row's system prompt before a system message that is there already; we keep the latter alone."""
    return messages[1:] if [message["role"] for message in messages[:2]] == ["system", "system"] else messages


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["path"])
def test_messages_and_tools_come_through_as_nemo_rl_preserves_them(case):
    rows = read(FOLDER / case["path"], **case["options"])
    assert [row.messages for row in rows] == [without_second_system(row["messages"]) for row in case["rows"]]
    assert [row.tools for row in rows] == [row.get("tools") for row in case["rows"]]


@pytest.mark.parametrize("case", UNIFIED, ids=lambda case: f"{case['path']} {case['options']}")
def test_on_request_messages_and_tools_gain_keys_as_nemo_rl_lets_them(case):
    source = DataSource(path=FOLDER / case["path"], format=Conversations(**case["options"]), preserving=False)
    rows = list(read_rows(source))
    assert [row.messages for row in rows] == [without_second_system(row["messages"]) for row in case["rows"]]
    if case["options"].get("tool_key", "tools"):
        assert [row.tools for row in rows] == [row.get("tools") for row in case["rows"]]


def test_rows_of_different_keys_are_not_made_equal(tmp_path):
    tools = [{"name": "f", "args": {"x": 1}}, {"name": "g", "args": {"y": None}}]
    rows = [{"messages": [{"role": "assistant", "content": "a"}], "tools": [tool]} for tool in tools]
    assert [row.tools for row in read(write(tmp_path, *rows))] == [[tools[0]], [tools[1]]]


def test_input_and_output_become_a_question_and_an_answer(tmp_path):
    [row] = read(write(tmp_path, {"q": "1+1?", "a": "2"}), input_key="q", output_key="a")
    assert row.messages == [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "2"}]
    assert row.form == "pair"


def test_messages_win_over_input_and_output(tmp_path):
    [row] = read(write(tmp_path, {"input": "x", "output": "y", "messages": [{"role": "assistant", "content": "z"}]}))
    assert (row.messages[0]["content"], row.form) == ("z", "both")


def test_a_system_prompt_stands_first_unless_there_is_one(tmp_path):
    path = write(
        tmp_path,
        {"input": "q", "output": "a"},
        {"input": "q", "output": "a", "sys": "row"},
        {"messages": [{"role": "system", "content": "own"}, {"role": "assistant", "content": "a"}], "sys": "row"},
    )
    rows = read(path, system_key="sys", system_prompt="default")
    assert [row.messages[0]["content"] for row in rows] == ["default", "row", "own"]


def test_the_prompt_is_put_around_the_first_user_message_only(tmp_path):
    roles = ["system", "user", "assistant", "user", "assistant"]
    path = write(tmp_path, {"messages": [{"role": role, "content": role} for role in roles]})
    [row] = read(path, prompt="Solve {} now")
    assert [message["content"] for message in row.messages] == ["system", "Solve user now", *roles[2:]]


def test_only_text_can_be_put_into_the_prompt(tmp_path):
    answer = {"role": "assistant", "content": "a"}
    parts = {"role": "user", "content": [{"type": "text", "text": "q"}]}
    path = write(tmp_path, {"input": None, "output": "a"}, {"messages": [parts, answer]}, {"messages": [answer]})
    assert [type(row) for row in read(path, prompt="Solve {}")] == [BadRow, BadRow, Conversation]
    assert [type(row) for row in read(path)] == [Conversation] * 3


def test_blank_lines_are_no_rows_and_lines_keep_their_numbers(tmp_path):
    rows = read(write(tmp_path, {"input": "q", "output": "a"}, b"\n", {"input": "q", "output": "b"}))
    assert [row.where.rsplit(":")[-1] for row in rows] == ["1", "3"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"input": "q", "output"\n', r"not JSON \(Expecting ':' delimiter at column 24\)"),
        (b'{"input": "\xff"}\n', r"not UTF-8 \(byte 11\)"),
        (b"[1]\n", "not a JSON object"),
        ({"input": "q", "ouput": "a"}, r"neither 'messages' nor 'input' with 'output' .*did you mean 'ouput'\?"),
        ({"messages": []}, "the messages are not a list of one or more"),
        ({"messages": [{"content": "x"}]}, "message 1 has no role"),
        ({"messages": [{"role": "assistant", "content": 3}]}, "the content of message 1 is int, not text"),
        ({"input": "q", "output": 4}, "the content of message 2 is int, not text"),
        ({"messages": [{"role": "user", "content": "q"}]}, "the last message comes from 'user', not from 'assistant'"),
        ({"messages": [{"role": "gpt", "content": "q"}]}, "not from 'assistant'; roles are system, user, assistant"),
        ({"input": "q", "output": "a", "tools": {}}, "'tools' is not a list"),
        ({"instruction": "q", "output": "a"}, r"among its keys .*\+\+data.dataset_name=alpaca"),
        ({"prompt": "q", "completion": "a"}, r"\+\+data.input_key=prompt \+\+data.output_key=completion$"),
        ({"prompt": "q", "chosen": [{"role": "user", "content": "q"}]}, r"\+\+data.chat_key=chosen$"),
        ({"text": "q"}, r"\+\+data.dataset_name=text$"),
        (
            {"conversations": [{"from": "human", "value": "q"}]},
            "NeMo-Aligner .*ShareGPT have to be written as messages",
        ),
        ({"conversations": [{"role": "user", "content": "q"}]}, r"\+\+data.chat_key=conversations$"),
        ({"x": "q", "y": "a"}, r"other names are given as \+\+data.input_key"),
    ],
)
def test_a_bad_row_says_where_and_what(tmp_path, line, what):
    good = {"input": "q", "output": "a"}
    path = write(tmp_path, good, line, good)
    first, bad, last = read(path)
    assert isinstance(first, Conversation)
    assert isinstance(last, Conversation)
    assert isinstance(bad, BadRow)
    assert bad.where == f"{path}:2"
    assert re.search(what, bad.what)


def test_a_json_file_is_an_array_or_lines(tmp_path):
    rows = [{"input": "q", "output": str(number)} for number in range(3)]
    array = tmp_path / "array.json"
    array.write_text(json.dumps(rows, indent=1))
    lines = write(tmp_path, *rows, name="lines.json")
    assert [row.messages for row in read(array)] == [row.messages for row in read(lines)]
    assert read(array)[1].where == f"{array}, row 2"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("absent.jsonl", None, "there is no such data file"),
        (
            "data.xml",
            "a,b",
            r"cannot read 'data.xml' as training data .*give one of .jsonl, .json, .csv, .tsv, .parquet",
        ),
        ("broken.json", "[1, ", "the file is not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(tmp_path, name, text, message):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        read(path)


def test_the_first_form_skips_bad_rows(tmp_path):
    path = write(tmp_path, b"{\n", {"input": "q", "output": "a"})
    assert first_form([DataSource(path=path)]) == "pair"
    assert first_form([DataSource(path=write(tmp_path, b"", name="empty.jsonl"))]) is None


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "completion": "a"},
        {"problem": "q", "generation": "a"},
        {"prompt": "q", "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    ],
)
def test_the_advice_for_other_names_reads_the_row(tmp_path, row):
    path = write(tmp_path, row)
    (bad,) = read(path)
    keys = dict(re.findall(r"\+\+data\.(\w+)=(\w+)", bad.what))
    (read_now,) = read(path, **keys)
    assert [message["content"] for message in read_now.messages] == ["q", "a"]
