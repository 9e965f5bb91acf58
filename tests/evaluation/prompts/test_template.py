"""Prompts: filled as the training data was, and clear about what is missing."""

from pathlib import Path

import pytest
import yaml

import skills_pipe.training.prepare
from skills_pipe.errors import DataError, OptionError
from skills_pipe.evaluation.prompts.template import load_prompt

MATH = (
    "Solve the following math problem. Make sure to put the answer (and only answer) inside \\boxed{}.\n\n"
    "What is {1} + 1?"
)


def test_the_math_prompt_reads_as_it_does_elsewhere():
    assert load_prompt("generic/math").fill({"problem": "What is {1} + 1?"}) == [{"role": "user", "content": MATH}]


def test_a_model_is_evaluated_with_the_prompt_that_it_was_trained_on():
    training = Path(skills_pipe.training.prepare.__file__).parent / "prompts" / "generic" / "math.yaml"
    user = yaml.safe_load(training.read_text())["user"]
    assert user.format(problem="What is {1} + 1?", examples="") == MATH
    # Negative control: one character of difference would be seen.
    assert user.replace("only", "only ").format(problem="What is {1} + 1?", examples="") != MATH


def test_a_system_message_comes_first_and_can_be_replaced(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("system: Be brief.\nuser: '{problem}'\n")
    row = {"problem": "p"}
    assert load_prompt(str(path)).fill(row)[0] == {"role": "system", "content": "Be brief."}
    assert load_prompt(str(path), system_message="Be long.").fill(row)[0]["content"] == "Be long."
    assert [m["role"] for m in load_prompt("generic/math").fill(row)] == ["user"]


def test_a_missing_field_is_named():
    with pytest.raises(DataError, match=r"no field 'problem'.*did you mean 'problems'"):
        load_prompt("generic/math").fill({"problems": "p"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("user: 3", "needs the key 'user'"),
        ("just text", "needs the key 'user'"),
        ("user: '{problem}'\nsytem: x", "unknown key 'sytem'.*did you mean 'system'"),
        ("user: 'a } b'", "write {{ and }}"),
        ("user: [", "no YAML"),
    ],
)
def test_a_broken_prompt_file_is_named(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(OptionError, match=message) as caught:
        load_prompt(str(path))
    assert str(path) in str(caught.value)


def test_an_unknown_prompt_gets_advice():
    with pytest.raises(OptionError, match="did you mean 'generic/math'"):
        load_prompt("generic/maths")
    with pytest.raises(OptionError, match="there is no prompt"):
        load_prompt("nowhere/mine.yaml")
