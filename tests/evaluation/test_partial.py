"""Answers survive kills: a torn line costs itself only, and answers of other settings are never mixed in."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from skills_pipe.artifacts.identity import Identity
from skills_pipe.errors import DataError
from skills_pipe.evaluation.partial import PartialAnswers

ROWS = {position: {"generation": f"text {position} \n é", "n": position} for position in range(6)}


def identity(**options):
    return Identity.of(options={"temperature": 0.0} | options, inputs={"data": "d"})


def write(folder, rows=ROWS, **options):
    answers = PartialAnswers(folder / "output.jsonl", identity(**options))
    with answers:
        for position, row in rows.items():
            answers.append(position, row)
    return answers


def test_answers_come_back_in_the_order_of_their_rows(tmp_path):
    shuffled = {position: ROWS[position] for position in (4, 1, 5, 0, 2, 3)}
    write(tmp_path, shuffled)
    again = PartialAnswers(tmp_path / "output.jsonl", identity())
    assert again.done == set(ROWS)
    assert list(again.in_order()) == list(ROWS.values())


def test_publishing_replaces_the_partial_file(tmp_path):
    answers = write(tmp_path)
    answers.publish(answers.in_order())
    lines = (tmp_path / "output.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(ROWS.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output.jsonl", "output.jsonl-settings.json"]
    assert PartialAnswers(tmp_path / "output.jsonl", identity()).finished


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_kill_at_any_byte_costs_the_line_it_cut_and_no_other(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("kill")
    write(folder)
    path = folder / "output.jsonl-async"
    whole = path.read_bytes()
    size = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:size])
    answers = PartialAnswers(folder / "output.jsonl", identity())
    assert answers.done == set(range(whole[:size].count(b"\n")))
    with answers:
        for position in sorted(set(ROWS) - answers.done):
            answers.append(position, ROWS[position])
    assert path.read_bytes() == whole
    assert list(PartialAnswers(folder / "output.jsonl", identity()).in_order()) == list(ROWS.values())


@pytest.mark.parametrize(
    "garbage", [b"\x00\xff\xfe\n", b"[1, 2]\n", b'{"no": "position"}\n', b'{"_async_position": 1, "gen\n']
)
def test_garbage_between_lines_costs_no_line(tmp_path, garbage):
    write(tmp_path)
    path = tmp_path / "output.jsonl-async"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], garbage, *lines[3:]]))
    answers = PartialAnswers(tmp_path / "output.jsonl", identity())
    assert answers.damaged_lines == 1
    assert list(answers.in_order()) == list(ROWS.values())


def test_an_answer_that_failed_for_a_passing_reason_is_asked_for_again(tmp_path):
    errors = {0: {"error": "http_503"}, 1: {"error": "context_window_exceeded"}, 2: {"generation": "x"}}
    write(tmp_path, errors)
    assert PartialAnswers(tmp_path / "output.jsonl", identity()).done == {1, 2}


@pytest.mark.parametrize("finished", [False, True])
def test_other_settings_start_anew_and_say_what_changed(tmp_path, finished):
    answers = write(tmp_path)
    if finished:
        answers.publish(answers.in_order())
    other = PartialAnswers(tmp_path / "output.jsonl", identity(temperature=0.7))
    assert other.changes == ["options.temperature: 0.0 -> 0.7"]
    assert not other.done
    assert not other.finished
    # Negative control: with the same settings nothing is lost.
    write(tmp_path, temperature=0.7)
    same = PartialAnswers(tmp_path / "output.jsonl", identity(temperature=0.7))
    assert same.changes == []
    assert same.done == set(ROWS)


@pytest.mark.parametrize("name", ["output.jsonl", "output.jsonl-async"])
def test_answers_of_unknown_settings_are_refused_and_not_touched(tmp_path, name):
    (tmp_path / name).write_text('{"generation": "precious"}\n')
    with pytest.raises(DataError, match="no record of the settings"):
        PartialAnswers(tmp_path / "output.jsonl", identity())
    assert (tmp_path / name).read_text() == '{"generation": "precious"}\n'
