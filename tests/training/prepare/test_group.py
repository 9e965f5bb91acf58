"""Groups, shuffling and downsampling, against plain lists in memory."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import ConfigError
from skills_pipe.training.prepare.group import CodeTextFilter, GroupSamples, ShuffleAndDownsampleData, take_in_turn
from skills_pipe.training.prepare.processor import Workspace, batched
from tests.training.prepare.rows import run_through

PROBLEMS = st.lists(st.sampled_from("abcdef"), max_size=40)


def rows_of(problems):
    return [{"problem": problem, "number": number} for number, problem in enumerate(problems)]


def grouped(rows):
    groups = defaultdict(list)
    for row in rows:
        groups[row["problem"]].append(row)
    return list(groups.values())


def flat(groups):
    return [row for group in groups for row in group]


def sample(rows, scratch, **options):
    """Group and sample in one stream, as in a run."""
    workspace = Workspace(scratch=scratch)
    groups = GroupSamples(group_key="problem").stream(batched(rows), workspace)
    return [row for batch in ShuffleAndDownsampleData(**options).stream(groups, workspace) for row in batch]


@given(PROBLEMS)
def test_groups_are_lists_of_rows_in_order_of_first_appearance(tmp_path_factory, problems):
    rows = rows_of(problems)
    assert run_through(GroupSamples(group_key="problem"), rows, tmp_path_factory.getbasetemp()) == grouped(rows)


@given(PROBLEMS, st.integers(0, 5))
def test_the_order_is_that_of_python_random(tmp_path_factory, problems, seed):
    expected = flat(grouped(rows_of(problems)))
    random.seed(seed)
    random.shuffle(expected)
    assert sample(rows_of(problems), tmp_path_factory.getbasetemp(), random_seed=seed) == expected


def test_another_seed_gives_another_order(tmp_path):
    rows = rows_of("abcdefabcdef")
    assert sample(rows, tmp_path, random_seed=1) != sample(rows, tmp_path, random_seed=2)


@given(PROBLEMS, st.integers(1, 45))
def test_fair_takes_one_of_each_problem_in_turn(tmp_path_factory, problems, number):
    rows = rows_of(problems)
    taken = sample(rows, tmp_path_factory.getbasetemp(), sampling_method="fair", num_samples=number, do_shuffle=False)
    assert len(taken) == min(number, len(rows))
    counts, available = Counter(row["problem"] for row in taken), Counter(problems)
    for one in counts:
        for other in available:
            # No problem gets a second turn before every other one that still has rows had its first.
            assert counts[one] <= counts[other] + 1 or counts[other] == available[other]
    for problem in counts:
        numbers = [row["number"] for row in rows if row["problem"] == problem]
        assert sorted(row["number"] for row in taken if row["problem"] == problem) == numbers[: counts[problem]]


def test_fair_takes_all_rows_when_just_as_many_are_asked_for(tmp_path):
    rows = rows_of("aab")
    taken = sample(rows, tmp_path, sampling_method="fair", num_samples=3, do_shuffle=False)
    assert [row["number"] for row in taken] == [0, 1, 2]


def test_turns():
    assert take_in_turn([10, 11, 12, 20, 30, 31], [3, 1, 2], 5) == [10, 20, 30, 11, 31]


def test_random_keeps_the_first_rows_of_the_shuffled_data(tmp_path):
    rows = rows_of("abcabcabc")
    everything = sample(rows, tmp_path, random_seed=7)
    assert sample(rows, tmp_path, random_seed=7, sampling_method="random", num_samples=4) == everything[:4]


@pytest.mark.parametrize(
    "options",
    [
        {"num_samples": 3},
        {"sampling_method": "random"},
        {"sampling_method": "best", "num_samples": 3},
        {"sampling_method": "fair", "num_samples": 0},
    ],
)
def test_half_or_wrong_downsampling_is_refused(options):
    with pytest.raises(ConfigError):
        ShuffleAndDownsampleData(**options)


@pytest.mark.parametrize(
    ("filter_type", "code", "text", "expected"),
    [
        ("all", 1, 2, "c"),
        ("all", 0, 2, ""),
        ("any_code", 1, 3, "c"),
        ("any_code", 0, 2, "tt"),
        ("majority_code", 2, 1, "cc"),
        ("majority_code", 1, 1, "ct"),
        ("majority_text", 2, 1, "cc"),
        ("majority_text", 1, 1, "t"),
    ],
)
def test_code_or_text_is_chosen_per_problem(tmp_path, filter_type, code, text, expected):
    group = [{"generation": "text"}] * text + [{"generation": "<tool_call>code"}] * code
    processor = CodeTextFilter(filter_type=filter_type, code_tags="nemotron")
    (chosen,) = run_through(processor, [group], tmp_path)
    assert "".join("c" if "code" in row["generation"] else "t" for row in chosen) == expected


def test_groups_that_were_filtered_are_sampled_too(tmp_path):
    rows = [{"problem": "p", "generation": text} for text in ("a", "<tool_call>b", "c")]
    workspace = Workspace(scratch=tmp_path)
    stream = GroupSamples(group_key="problem").stream(batched(rows), workspace)
    stream = CodeTextFilter(filter_type="any_code", code_tags="nemotron").stream(stream, workspace)
    stream = ShuffleAndDownsampleData().stream(stream, workspace)
    assert [row["generation"] for batch in stream for row in batch] == ["<tool_call>b"]


def test_a_wrong_choice_or_missing_tags_are_refused():
    with pytest.raises(ConfigError, match="use all"):
        CodeTextFilter(filter_type="some", code_tags="qwen")
    with pytest.raises(ConfigError, match="code_tags"):
        CodeTextFilter(filter_type="all")
