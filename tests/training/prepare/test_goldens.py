"""The prepared data equals, row by row, what the original program made of the same inputs.

``golden/A/cases.json`` holds the command lines and ``golden/A/outputs`` the answers. Two differences are meant:
answers that were cut off do not get the end of a turn, and ``finish_reason`` stays in a row.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.training.prepare_data import main

GOLDEN = Path(__file__).parents[1] / "golden" / "A"
CASES = {case["name"]: case for case in json.loads((GOLDEN / "cases.json").read_text())}
CUT_OFF = json.loads((GOLDEN / "finish_reason_rows.json").read_text())
END_OF_TURN = {
    "a02_tokenizer_prompt": "<|im_end|>\n",
    "a24_assistant_end": "<|eot_id|>",
    "b01_finish_reason_length": "<|im_end|>\n",
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    for name in ("inputs", "tokenizers"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(name: str) -> int:
    return main([f"--config-name={CASES[name]['config_name']}", *CASES[name]["overrides"]])


def expected_rows(name: str) -> list[dict]:
    expected = rows(GOLDEN / CASES[name]["output"])
    for line in CUT_OFF.get(name, []):
        assert expected[line]["output"].endswith(END_OF_TURN[name])
        expected[line]["output"] = expected[line]["output"].removesuffix(END_OF_TURN[name])
    return expected


def without(key: str, data: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != key} for row in data]


WITH_OUTPUT = [name for name, case in CASES.items() if case["output"] and name not in ("a40_slice_2_to_end",)]


@pytest.mark.parametrize("name", WITH_OUTPUT)
def test_equal_to_the_original_in_rows_and_order(name, workplace):
    assert run(name) == 0
    ours, expected = rows(workplace / CASES[name]["output"]), expected_rows(name)
    if name != "w01_finish_reason_kept":
        ours = without("finish_reason", ours)
    assert ours == expected


@pytest.mark.parametrize("name", WITH_OUTPUT)
def test_counts_equal_those_of_the_original(name, workplace):
    run(name)
    facts = manifest.read(workplace / CASES[name]["output"]).facts
    reader = facts["processors"][0]
    before = reader["kept"] + reader["dropped"].get("repeated", 0)
    log = CASES[name]["log_counts"]
    assert log[0] in (f"Total samples before deduplication: {before}", f"Total samples: {before}")
    assert f"Total samples after deduplication: {reader['kept']}" in log or len(log) == 4
    assert any(line.endswith(f"dataset size: {facts['rows']}") for line in log)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["expect_error"]])
def test_what_the_original_refuses_is_refused_in_one_line(name, workplace, capsys):
    assert run(name) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (workplace / "outputs").exists() or not list((workplace / "outputs").iterdir())


def test_a_run_can_stop_after_the_first_processor_and_go_on_later(workplace):
    assert run("a39_slice_0") == 0
    intermediate = workplace / CASES["a39_slice_0"]["intermediate"]
    assert without("finish_reason", rows(intermediate)) == rows(GOLDEN / CASES["a39_slice_0"]["intermediate"])
    assert not (workplace / "outputs/a39_slice_0.jsonl").exists()
    assert run("a40_slice_2_to_end") == 0
    assert rows(workplace / CASES["a40_slice_2_to_end"]["output"]) == expected_rows("a40_slice_2_to_end")


def test_the_comparison_would_see_another_seed(workplace):
    overrides = [*CASES["a01_no_tokenizer"]["overrides"], "++random_seed=43"]
    assert main(overrides) == 0
    ours, expected = rows(workplace / CASES["a01_no_tokenizer"]["output"]), expected_rows("a01_no_tokenizer")
    assert ours != expected
    assert sorted(map(json.dumps, ours)) == sorted(map(json.dumps, expected))


def test_the_comparison_would_see_the_end_of_a_turn_behind_a_cut_off_answer(workplace):
    name = "b01_finish_reason_length"
    assert rows(GOLDEN / CASES[name]["output"]) != expected_rows(name)
