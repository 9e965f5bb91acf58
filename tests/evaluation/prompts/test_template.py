"""Prompts: filled as the training data was, and clear about what is missing."""

import re
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


TRAINING = Path(skills_pipe.training.prepare.__file__).parent / "prompts"


@pytest.mark.parametrize("path", sorted(TRAINING.glob("generic/*.yaml")), ids=lambda path: path.stem)
def test_a_model_is_evaluated_with_the_prompt_that_it_was_trained_on(path):
    training = yaml.safe_load(path.read_text())
    here = load_prompt(f"generic/{path.stem}")
    assert (here.user, here.system) == (training["user"], training.get("system"))


def test_a_difference_between_the_prompts_would_be_seen():
    """Negative control of the test above, and that it compares something."""
    assert (TRAINING / "generic" / "math.yaml").is_file()
    assert load_prompt("generic/math").user != load_prompt("generic/general-boxed").user


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
        ("user: '{problem}'\nsytem: x", "did you mean 'system'"),
        ("user: 'a } b'", "write {{ and }}"),
        ("user: '{0}'", "{0} names no field"),
        ("user: '{problem.x}'", "{problem.x} names no field"),
        ("user: '{problem}'\nfew_shot_examples: {examples_type: gsm8k}", "few-shot examples are not supported"),
        ("user: [", "no YAML"),
    ],
)
def test_a_broken_prompt_file_is_named(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(OptionError, match=re.escape(message)) as caught:
        load_prompt(str(path))
    assert str(path) in str(caught.value)


def test_a_prompt_of_nemo_skills_without_examples_is_read_as_it_is(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("few_shot_examples:\n  prefix: p\n  template: t\n  suffix: s\nuser: '{examples}{problem}'\n")
    assert load_prompt(str(path)).fill({"problem": "x"}) == [{"role": "user", "content": "x"}]


def test_an_unknown_prompt_gets_advice():
    with pytest.raises(OptionError, match="did you mean 'generic/math'"):
        load_prompt("generic/maths")
    with pytest.raises(OptionError, match="there is no prompt"):
        load_prompt("nowhere/mine.yaml")
