"""Training examples: their keys, their text, and each pair only once."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.prepare.write import WriteFinalRLManifest, WriteFinalSftManifest
from tests.training.prepare.rows import CHATML, run_through, solution

KEYS = {"input_key": "problem", "output_key": "generation"}


def written(rows, tmp_path, **options):
    return run_through(WriteFinalSftManifest(**KEYS | options), rows, tmp_path)


def test_without_a_tokenizer_the_texts_stay_as_they_are(tmp_path):
    (example,) = written([solution(1, expected_answer=2)], tmp_path, prompt_config="generic/math")
    assert example == {"expected_answer": "2", "input": "What is 1 + 1?", "output": "It is \\boxed{2}"}


def test_without_a_prompt_the_problem_alone_is_the_users_turn(tmp_path):
    (example,) = written([solution(1)], tmp_path, tokenizer=CHATML)
    assert example["input"] == "<|im_start|>user\nWhat is 1 + 1?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("finish_reason", "closed"), [(None, True), ("stop", True), ("length", False), ("content_filter", False)]
)
def test_only_finished_answers_are_closed(tmp_path, finish_reason, closed):
    rows = [solution(1, finish_reason=finish_reason)]
    (example,) = written(rows, tmp_path, tokenizer=CHATML)
    assert example["output"].endswith("<|im_end|>\n") == closed
    (example,) = written(rows, tmp_path, tokenizer=CHATML, assistant_end="<end>")
    assert example["output"].endswith("<end>") == closed


def test_a_row_cut_off_inside_its_reasoning_is_dropped(tmp_path):
    cut = solution(1, generation="", reasoning_content="one and", finish_reason="length")
    whole = solution(2, reasoning_content="two and one")
    (example,) = written([cut, whole], tmp_path, tokenizer=CHATML)
    assert example["output"].startswith("<think>\ntwo and one")


def test_pairs_that_filters_made_equal_are_written_once(tmp_path):
    rows = [solution(1), solution(1, expected_answer="other"), solution(1, generation="else")]
    assert [example["output"] for example in written(rows, tmp_path)] == ["It is \\boxed{2}", "else"]


def test_optional_keys_and_metadata(tmp_path):
    (example,) = written(
        [solution(1, expected_answer=2, votes=3)],
        tmp_path,
        exclude_optional_keys=False,
        metadata={"source": "sums", "votes": 4},
    )
    expected = solution(1, expected_answer=2, votes=4, source="sums")
    assert example == expected | {"input": expected["problem"], "output": expected["generation"]}


@pytest.mark.parametrize(
    "options",
    [
        {"system_message": "x"},
        {"system_message": "x", "tokenizer": CHATML},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"prompt_config": "generic/none"},
    ],
)
def test_options_that_cannot_work_together_are_refused(options):
    with pytest.raises(ConfigError):
        WriteFinalSftManifest(**options)


def test_an_end_of_ones_own_cannot_close_reasoning(tmp_path):
    with pytest.raises(ConfigError, match="reasoning_content"):
        written([solution(1, reasoning_content="hm")], tmp_path, tokenizer=CHATML, assistant_end="<end>")


def test_problems_are_shuffled_cut_and_named(tmp_path):
    rows = [solution(number) for number in range(20)]
    processor = WriteFinalRLManifest(input_key="problem", task_name="math", num_output_samples=5, random_seed=3)
    problems = run_through(processor, rows, tmp_path)
    assert len(problems) == 5
    assert set(problems[0]) == {"expected_answer", "problem", "input", "task_name"}
    assert problems != run_through(WriteFinalRLManifest(input_key="problem", do_shuffle=False), rows, tmp_path)[:5]


def test_it_says_when_texts_are_not_formatted(caplog):
    WriteFinalSftManifest(prompt_config="generic/math")
    assert "no tokenizer" in caplog.text
    caplog.clear()
    WriteFinalSftManifest(tokenizer=CHATML)
    assert "no prompt_config" in caplog.text
    caplog.clear()
    WriteFinalSftManifest(tokenizer=CHATML, prompt_config="generic/math")
    assert caplog.text == ""
