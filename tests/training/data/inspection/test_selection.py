"""Which rows are looked at."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.inspection.selection import select
from skills_pipe.training.data.sources import DataSource
from tests.training.tiny import write_jsonl


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    sizes = {"a": 300, "b": 5, "c": 40}
    return [
        DataSource(path=write_jsonl(folder / f"{name}.jsonl", ({"input": name, "output": str(i)} for i in range(size))))
        for name, size in sizes.items()
    ]


def numbers(selection):
    return [(row.messages[0]["content"], int(row.messages[1]["content"])) for row in selection.rows()]


ALL = [*(("a", i) for i in range(300)), *(("b", i) for i in range(5)), *(("c", i) for i in range(40))]


@pytest.mark.parametrize("most", [0, 345, 1000])
def test_all_rows_are_read_in_their_order(sources, most):
    selection = select(sources, most)
    assert numbers(selection) == ALL
    assert selection.whole
    assert selection.share == 1
    assert selection.describe() == "all 345 rows"


@given(most=st.integers(1, 344))
def test_as_many_rows_are_read_as_were_asked_for_each_once(sources, most):
    selection = select(sources, most)
    read = numbers(selection)
    assert len(read) == selection.chosen == most
    assert sorted(set(read)) == read
    assert not selection.whole


def test_rows_come_from_the_beginning_the_middle_and_the_end(sources):
    read = [number for name, number in numbers(select(sources, 46)) if name == "a"]
    assert len(read) == 40
    assert read[:2] == [0, 1]
    assert read[-2:] == [298, 299]
    assert max(later - earlier for earlier, later in pairwise(read)) < 20


def test_what_is_read_is_said(sources):
    assert select(sources, 46).describe() == "46 of 345 rows, from 26 places spread over the data"


def test_no_files_have_no_rows():
    assert list(select([], 10).rows()) == []
    assert select([], 10).share == 1
