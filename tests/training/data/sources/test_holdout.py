"""Rows set aside: the same as datasets.train_test_split takes, over several files, in any process."""

import json
from pathlib import Path

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.data.sources import DataSource, read_rows
from skills_pipe.training.data.sources.holdout import hold_out
from skills_pipe.training.data.sources.texts import Texts

RECORDED = json.loads((Path(__file__).parents[2] / "golden" / "saved" / "train_test_split.json").read_text())


@pytest.mark.parametrize("case", RECORDED)
def test_the_rows_are_those_that_datasets_sets_aside(case):
    total, size, seed = case.split(",")
    [(kept, aside)] = hold_out([int(total)], float(size), int(seed))
    assert [row for row in range(int(total)) if row in aside] == RECORDED[case]
    assert [row for row in range(int(total)) if row in kept] == sorted(set(range(int(total))) - set(RECORDED[case]))


def test_files_are_split_as_if_they_were_one():
    [(_, whole)] = hold_out([30], 0.2, 1)
    parts = hold_out([10, 0, 15, 5], 0.2, 1)
    joined = [row in aside for rows, (_, aside) in zip([10, 0, 15, 5], parts, strict=True) for row in range(rows)]
    assert joined == [row in whole for row in range(30)]


def test_another_seed_takes_other_rows():
    chosen = [[row for row in range(100) if row in hold_out([100], 0.1, seed)[0][1]] for seed in (1, 2)]
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("size", [10, 11, 0.999])
def test_something_must_be_left(size):
    with pytest.raises(ConfigError, match=r"of 10 rows cannot be set aside .*split_validation_size"):
        hold_out([10], size, 1)


def test_parts_of_a_source_read_its_rows_only(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'"{n}"\n' if n % 3 else "\n" for n in range(30)))
    whole = DataSource(path=path, format=Texts())
    [(kept, aside)] = hold_out([len(whole.open())], 5, 0)
    sides = [DataSource(path=path, format=Texts(), part=part) for part in (kept, aside)]
    read = [[row.segments[0].text for row in read_rows(source)] for source in (whole, *sides)]
    assert len(read[2]) == 5
    assert sorted(read[1] + read[2], key=int) == read[0]
    # By number, as processes that share the work read it.
    halves = [row.segments[0].text for part in ((0, 9), (9, None)) for row in read_rows(sides[1], *part)]
    assert halves == read[2]
