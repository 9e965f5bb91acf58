"""What is counted of rows: the same that training counts, and more."""

import json
from dataclasses import replace

import pytest

from skills_pipe.training.data.build import build_dataset
from skills_pipe.training.data.doctor.survey import survey
from skills_pipe.training.data.sources import DataSource
from tests.training.data.looking import chat, recipe, selection
from tests.training.tiny import chat_rows

MIXED = [*chat_rows(40), chat("x" * 300, "a"), {"messages": []}, chat("q", "a", "r", "b"), chat("q", "")]


@pytest.mark.parametrize("overlong", ["drop", "truncate"])
@pytest.mark.parametrize("template", ["default", None])
def test_the_report_is_that_of_training(tmp_path, overlong, template):
    how = recipe(template=template, max_length=100, overlong=overlong, on_bad_row="skip", add_bos=True)
    rows = selection(tmp_path / "rows.jsonl", MIXED)
    dataset = build_dataset([rows.stretches[0].source], how.tokenizer, how.template, how.settings)
    found, _ = survey(rows, how)
    # The doctor names bad rows among its findings.
    plain = {"compared": 0, "tokenized_by": "", "bad_rows": ()}
    ours, theirs = (replace(report, **plain) for report in (found.report, dataset.report))
    assert ours == theirs
    assert found.kept.tolist() == dataset.lengths.tolist()
    assert found.targets.tolist() == dataset.targets.tolist()
    assert sorted(ours.describe()) == sorted(theirs.describe())


def test_the_check_sees_other_settings(tmp_path):
    rows = selection(tmp_path / "rows.jsonl", MIXED)
    found, _ = survey(rows, recipe(max_length=100, on_bad_row="skip"))
    other, _ = survey(rows, recipe(max_length=60, on_bad_row="skip"))
    assert found.report != other.report


def test_lengths_are_those_without_a_limit(tmp_path):
    found, _ = survey(selection(tmp_path / "rows.jsonl", MIXED), recipe(max_length=100))
    assert len(found.lengths) == 43
    assert max(found.lengths) > 300
    assert found.overlong == (f"{tmp_path}/rows.jsonl:41",)


def test_bad_rows_are_named_and_counted(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("{\n" * 30 + json.dumps(chat("q", "a")) + "\n")
    from skills_pipe.training.data.inspection.selection import select

    found, _ = survey(select([DataSource(path=path)], 0), recipe())
    assert found.fault_count == 30
    assert [fault.where for fault in found.faults] == [f"{path}:{line}" for line in range(1, 11)]
    assert found.report.documents == 1


def test_answers_and_endings_are_counted(tmp_path):
    found, _ = survey(selection(tmp_path / "rows.jsonl", [chat("q", "a", "r", "b"), chat("q", "c")]), recipe())
    assert found.answers == {1: 1, 2: 1}
    assert found.endings.last == {"<|im_end|>": 3}
    assert (found.endings.documents, found.endings.with_bos) == (2, 2)


def test_answers_without_a_special_token_are_told_apart(tmp_path):
    found, _ = survey(selection(tmp_path / "rows.jsonl", [chat("q", "a")]), recipe(template=None, add_eos=False))
    assert found.endings.last == {None: 1}


def test_an_estimate_grows_with_the_rows_that_are_left_out(tmp_path):
    rows = [chat("q", "a")] * 1000
    found, _ = survey(selection(tmp_path / "rows.jsonl", rows, most=100), recipe())
    assert found.report.documents == 100
    assert found.documents_in_all == 1000
    assert found.tokens_in_all == 10 * found.report.tokens
