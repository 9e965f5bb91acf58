"""Which rows of which files are read, and what happens to damaged lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import ConfigError, DataError, OptionError
from skills_pipe.training.prepare.processor import Workspace
from skills_pipe.training.prepare.read import ReadData, is_correct_judgement, split_patterns
from tests.training.prepare.rows import run_through, solution, write_rows


def read(tmp_path, **options):
    defaults = {"input_files": str(tmp_path / "*.jsonl"), "input_key": "problem", "output_key": "generation"}
    return run_through(ReadData(**defaults | options), (), tmp_path)


def numbers(rows):
    return [int(row["expected_answer"]) - 1 for row in rows]


def test_files_are_read_in_the_order_of_patterns_then_names(tmp_path):
    for name, number in [("b.jsonl", 2), ("a.jsonl", 1), ("sub/c.jsonl", 3)]:
        write_rows(tmp_path / name, [solution(number)])
    assert numbers(read(tmp_path, input_files=f"{tmp_path}/**/c.jsonl {tmp_path}/*.jsonl")) == [3, 1, 2]
    assert numbers(read(tmp_path, input_files=f"{tmp_path}/*.jsonl, {tmp_path}/sub/c.jsonl")) == [1, 2, 3]
    assert numbers(read(tmp_path, input_files=[f"{tmp_path}/b.jsonl"])) == [2]


def test_names_with_spaces_need_a_comma():
    assert split_patterns("a b.jsonl,") == ["a b.jsonl"]
    assert split_patterns("a b.jsonl") == ["a", "b.jsonl"]


def test_every_pattern_without_files_is_named(tmp_path):
    write_rows(tmp_path / "a.jsonl", [solution()])
    with pytest.raises(OptionError) as caught:
        read(tmp_path, input_files=f"{tmp_path}/a.jsonl {tmp_path}/x*.jsonl {tmp_path}/y.jsonl")
    assert "x*.jsonl" in str(caught.value)
    assert "y.jsonl" in str(caught.value)
    assert "a.jsonl" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [1]),
        ({"add_incorrect": True}, [1, 2]),
        ({"add_correct": False, "add_incorrect": True}, [2]),
        ({"add_unlabeled": True}, [1, 2, 3]),
        ({"use_judgement": True}, [2]),
        ({"use_judgement": True, "add_incorrect": True}, [1, 2]),
        ({"output_key": None}, [1, 2, 3]),
    ],
)
def test_correctness_chooses_rows(tmp_path, options, expected):
    unlabelled = solution(3)
    del unlabelled["symbolic_correct"]
    rows = [
        solution(1, judgement="Judgement: No"),
        solution(2, symbolic_correct=False, judgement="Judgement: Yes"),
        unlabelled,
        {},
    ]
    write_rows(tmp_path / "a.jsonl", rows)
    assert numbers(read(tmp_path, **options)) == expected


@pytest.mark.parametrize(
    ("judgement", "correct"),
    [
        ("Judgement: Yes", True),
        ("Reasoning.\nJudgement:  YES, the same", True),
        ("Judgement: No", False),
        ("Judgement: Yes\nJudgement: No", False),
        ("Yes", False),
        ("", False),
    ],
)
def test_the_last_judgement_counts(judgement, correct):
    assert is_correct_judgement(judgement) == correct


def test_dropped_rows_are_counted_by_reason(tmp_path):
    unlabelled = solution(4)
    del unlabelled["symbolic_correct"]
    rows = [solution(9), solution(1), solution(1), solution(2, symbolic_correct=False), unlabelled, {}]
    write_rows(tmp_path / "a.jsonl", rows)
    workspace = Workspace(scratch=tmp_path)
    reader = ReadData(input_files=str(tmp_path / "a.jsonl"), input_key="problem", output_key="generation", skip_first=1)
    list(reader.stream((), workspace))
    (tally,) = workspace.tallies
    assert (tally.read, tally.kept) == (6, 1)
    assert tally.dropped == {
        "among skip_first": 1,
        "repeated": 1,
        "incorrect": 1,
        "no symbolic_correct (incomplete generation)": 1,
        "empty (incomplete generation)": 1,
    }
    assert tally.read == tally.kept + sum(tally.dropped.values())


def test_finished_data_is_taken_whatever_its_correctness(tmp_path):
    path = write_rows(tmp_path / "a.jsonl", [solution(1, symbolic_correct=False)])
    assert numbers(read(tmp_path, input_files=None, preprocessed_dataset_files=str(path))) == [1]
    assert read(tmp_path) == []


def test_without_deduplication_repeated_rows_stay(tmp_path):
    write_rows(tmp_path / "a.jsonl", [solution(1), solution(1), solution(1, generation="otherwise")])
    assert len(read(tmp_path)) == 2
    assert len(read(tmp_path, deduplicate=False)) == 3


def test_only_the_named_keys_and_those_that_formatting_needs_stay(tmp_path):
    write_rows(tmp_path / "a.jsonl", [solution(1, finish_reason="length", subject="sums")])
    (row,) = read(tmp_path, keys_to_keep=["expected_answer"])
    assert set(row) == {"problem", "generation", "expected_answer", "symbolic_correct", "finish_reason"}
    (row,) = read(tmp_path)
    assert row["subject"] == "sums"
    assert row["filename"] == str(tmp_path / "a.jsonl")
    (row,) = read(tmp_path, input_files=None, preprocessed_dataset_files=str(tmp_path / "a.jsonl"))
    assert "filename" not in row


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"problem": "cut', "not a usable row"),
        ("[1, 2]", "object was expected"),
        (json.dumps(solution(1, generation=None)), "'generation' holds NoneType"),
        (json.dumps({"problem": "x", "generaton": "y", "symbolic_correct": True}), "did you mean 'generaton'"),
    ],
)
def test_a_bad_line_is_an_error_with_its_place_or_is_skipped_and_counted(tmp_path, line, reason):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(solution(1)) + "\n" + line + "\n" + json.dumps(solution(2)) + "\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2") as caught:
        read(tmp_path)
    assert reason in str(caught.value)
    assert numbers(read(tmp_path, on_bad_row="skip")) == [1, 2]


GOOD = st.integers(0, 50).map(lambda number: json.dumps(solution(number)).encode())
TRUNCATED = st.tuples(GOOD, st.integers(1, 30)).map(lambda cut: cut[0][: -cut[1]])
GARBAGE = st.binary(min_size=1, max_size=30).map(lambda text: b"\xff" + text.replace(b"\n", b"?"))


@given(st.lists(st.tuples(st.booleans(), GOOD, TRUNCATED | GARBAGE), min_size=1, max_size=20), st.booleans())
def test_damaged_lines_cost_no_other_row(tmp_path_factory, lines, ends_in_newline):
    folder = tmp_path_factory.mktemp("damage")
    text = b"\n".join(good if whole else bad for whole, good, bad in lines)
    (folder / "a.jsonl").write_bytes(text + b"\n" * ends_in_newline)
    expected = [json.loads(good) for whole, good, _ in lines if whole]
    options = {"deduplicate": False, "keys_to_keep": ["expected_answer"]}
    assert read(folder, on_bad_row="skip", **options) == expected
    first_bad = next((number for number, (whole, _, _) in enumerate(lines, 1) if not whole), None)
    if first_bad is None:
        assert read(folder, **options) == expected
    else:
        with pytest.raises(DataError, match=rf"a\.jsonl:{first_bad}\)"):
            read(folder, **options)


def test_nothing_to_read_and_nothing_to_take_are_errors(tmp_path):
    with pytest.raises(OptionError, match="nothing to read"):
        ReadData()
    with pytest.raises(OptionError, match="every row would be dropped"):
        ReadData(input_files="a", output_key="generation", add_correct=False)
    with pytest.raises(ConfigError, match="on_bad_row"):
        ReadData(input_files="a", on_bad_row="ignore")
