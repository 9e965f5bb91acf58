"""Prompts come from packaged names, files or mappings, and say what they miss."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError, DataError
from skills_pipe.training.prepare.prompt import load_code_tags, load_prompt


def test_the_packaged_math_prompt():
    (message,) = load_prompt("generic/math").messages({"problem": "1 {x} 2?"})
    assert message == {
        "role": "user",
        "content": "Solve the following math problem. Make sure to put the answer (and only answer) inside "
        "\\boxed{}.\n\n1 {x} 2?",
    }


@pytest.mark.parametrize("name", ["generic/math", "generic/default", "generic/general-boxed", "generic/math-base"])
def test_packaged_prompts_need_no_more_than_the_problem(name):
    assert "1 + 1" in load_prompt(name).messages({"problem": "1 + 1", "question": "1 + 1"})[-1]["content"]


def test_a_file_of_the_user_with_a_system_turn(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("system: Be brief.\nuser: 'Q: {question}{examples}'\n")
    assert load_prompt(str(path)).messages({"question": "x"}) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Q: x"},
    ]
    assert load_prompt(str(path), system_message="Be long.").messages({"question": "x"})[0]["content"] == "Be long."


def test_a_missing_value_is_named():
    with pytest.raises(DataError, match=r"generic/math needs \{problem\}.*did you mean 'problems'"):
        load_prompt("generic/math").messages({"problems": "x"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"usr": "x"}, "did you mean 'user'"),
        ({}, "needs a text at 'user'"),
        ({"user": "{problem"}, "no template"),
        ({"user": "{problem.upper}"}, "no plain key"),
        ({"user": "{0}"}, "no plain key"),
        ({"user": "x", "few_shot_examples": {"examples_type": "gsm8k"}}, "few-shot examples are not supported"),
    ],
)
def test_a_wrong_prompt_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        load_prompt(values)


def test_few_shot_texts_without_examples_are_let_pass():
    texts = {"prefix": "x", "template": "y", "suffix": "z"}
    assert load_prompt({"user": "{examples}{problem}", "few_shot_examples": texts}).user == "{examples}{problem}"


def test_an_unknown_name_gets_a_suggestion(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'generic/math'"):
        load_prompt("generic/mth")
    with pytest.raises(ConfigError, match=r"gone\.yaml"):
        load_prompt(str(tmp_path / "gone.yaml"))
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="no YAML"):
        load_prompt(str(tmp_path / "bad.yaml"))


def test_code_tags():
    assert load_code_tags("nemotron").code_begin == "<tool_call>"
    assert load_code_tags("qwen").code_begin == "```python\n"
    with pytest.raises(ConfigError, match="did you mean 'qwen'"):
        load_code_tags("qwn")
