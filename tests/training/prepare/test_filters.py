"""Each filter drops what it says and nothing else."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError, DataError
from skills_pipe.training.prepare import filters
from skills_pipe.training.prepare.tally import Tally
from tests.training.prepare.rows import CHATML, solution, write_rows


def reason(processor, row):
    """Why a processor drops a row; None when it keeps it."""
    tally = Tally(name="test")
    kept = processor.apply([row], tally)
    assert len(kept) + sum(tally.dropped.values()) == 1
    return None if kept else next(iter(tally.dropped))


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("\\boxed{1}", False),
        ("\\boxed{1} \\boxed{1}", True),
        ("\\boxed{\\frac{1}{2}} \\boxed{", False),
        ("boxed{1} boxed{2}", False),
    ],
)
def test_more_than_one_boxed_answer(text, dropped):
    assert (reason(filters.DropMultiBoxed(), {"generation": text}) is not None) == dropped


@pytest.mark.parametrize(("blocks", "dropped"), [(0, True), (1, False), (2, True)])
def test_exactly_one_code_block(blocks, dropped):
    text = "```python\npass\n```\n" * blocks
    assert (reason(filters.DropIncorrectCodeBlocks(), {"generation": text}) is not None) == dropped


def test_patterns_are_taken_literally():
    match = filters.DropIfRegexMatch(regex_patterns=["a.c", "(x)"])
    assert reason(match, {"generation": "so a.c it is"}) == "contains 'a.c'"
    assert reason(match, {"generation": "abc x"}) is None
    lack = filters.DropIfRegexNotMatch(regex_patterns=["<a>", "</a>"], text_key="text")
    assert reason(lack, {"text": "<a>never closed"}) == "lacks '</a>'"
    assert reason(lack, {"text": "<a></a>"}) is None


def test_values_that_are_equal():
    processor = filters.DropIfEqual(key="answer", values=[None, "", 0])
    assert [reason(processor, row) is None for row in ({"answer": None}, {"answer": ""}, {}, {"answer": 0})] == [
        False
    ] * 4
    assert [reason(processor, row) is None for row in ({"answer": "0"}, {"answer": False}, {"answer": 1})] == [True] * 3


@pytest.mark.parametrize(
    ("votes", "total", "dropped"), [(4, 8, False), (3, 4, True), (4, 9, True), (None, 8, False), (0, None, False)]
)
def test_majority_needs_votes_and_a_share(votes, total, dropped):
    processor = filters.MajorityFilter(min_majority_votes=4, min_majority_percentage=0.5)
    row = {"majority_votes": votes, "total_votes": total}
    assert (reason(processor, row) is not None) == dropped


def test_contaminated_problems_are_found_by_the_key_in_use(tmp_path):
    path = str(
        write_rows(tmp_path / "c.jsonl", [{"task": "a", "contaminated": True}, {"task": "b", "contaminated": False}])
    )
    processor = filters.RemoveContaminated(contamination_file=path, check_key="task")
    assert reason(processor, {"task": "a"}) == "contaminated"
    assert reason(processor, {"task": "b"}) is None
    with pytest.raises(DataError, match="no 'problem'"):
        filters.RemoveContaminated(contamination_file=path)
    with pytest.raises(ConfigError, match="contamination_file"):
        filters.RemoveContaminated()


def test_lengths_are_counted_in_tokens_with_both_bounds_included():
    from transformers import AutoTokenizer

    text = "sum and then note that"
    length = len(AutoTokenizer.from_pretrained(CHATML).encode(text, add_special_tokens=False))

    def dropped(low, high):
        return reason(
            filters.RemoveLenOutliers(min_length=low, max_length=high, tokenizer=CHATML), {"generation": text}
        )

    assert dropped(length, length) is None
    assert dropped(length + 1, None) == "generation too short"
    assert dropped(None, length - 1) == "generation too long"


def test_characters_need_no_tokenizer():
    processor = filters.RemoveLenOutliers(min_length=3, use_chars_for_min_length=True)
    assert reason(processor, {"generation": "ab"}) == "generation too short"
    assert reason(processor, {"generation": "abc"}) is None


def test_a_length_filter_without_bounds_or_tokenizer_is_refused():
    with pytest.raises(ConfigError, match="without bounds"):
        filters.RemoveLenOutliers(tokenizer=CHATML)
    with pytest.raises(ConfigError, match="need a tokenizer"):
        filters.RemoveLenOutliers(max_length=3)


def test_a_row_without_the_text_is_an_error():
    with pytest.raises(DataError, match="no 'solution'"):
        reason(filters.DropMultiBoxed(solution_key="solution"), solution())
