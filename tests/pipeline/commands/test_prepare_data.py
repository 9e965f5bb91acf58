"""``ns prepare_data``: benchmarks by name, or training data from files."""

import pytest

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.prepare_data import PrepareDataOptions, plan
from skills_pipe.pipeline.console.command import Command
from skills_pipe.pipeline.plan import Plan

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")
FILES = ("++input_files=a/output-rs*.jsonl", "++output_path=out/sft.jsonl")


@pytest.fixture(autouse=True)
def _no_data_dir(monkeypatch):
    monkeypatch.delenv("NEMO_SKILLS_DATA_DIR", raising=False)


def planned(*line: str) -> Plan:
    command = Command(
        options=PrepareDataOptions, run=lambda options, extras: plan(options, extras, HERE), takes_extras=True
    )
    return command.call(line, {})


def refused(*line: str) -> str:
    with pytest.raises(OptionError) as caught:
        planned(*line)
    return str(caught.value)


def test_each_benchmark_is_a_job():
    made = planned("gsm8k", "arithmetic", "--data_dir=/d", "++arithmetic.test_count=5")
    assert [job.name for job in made.jobs] == ["prepare-data-gsm8k", "prepare-data-arithmetic"]
    assert made.stage("gsm8k").output == "/d/gsm8k/test.jsonl"
    assert made.job("prepare-data-gsm8k").command.argv[2:] == (
        "skills_pipe.evaluation.prepare_benchmarks",
        "gsm8k",
        "--data_dir=/d",
    )
    assert made.job("prepare-data-arithmetic").command.argv[-1] == "++arithmetic.test_count=5"


def test_files_become_training_data():
    made = planned(*FILES, "++prompt_config=generic/math", "++tokenizer=org/model")
    assert made.jobs[0].command.argv == (
        "python",
        "-m",
        "skills_pipe.training.prepare_data",
        *FILES,
        "++prompt_config=generic/math",
        "++tokenizer=org/model",
    )
    stage = made.stages[0]
    assert stage.output == "/home/me/out/sft.jsonl"
    assert stage.inputs == ("/home/me/a/output-rs*.jsonl", "org/model")
    assert made.jobs[0].command.working_dir == "/home/me"


@pytest.mark.parametrize(
    ("files", "inputs"),
    [
        ("a.jsonl b.jsonl", ("/home/me/a.jsonl", "/home/me/b.jsonl")),
        ("a.jsonl, b.jsonl", ("/home/me/a.jsonl", "/home/me/b.jsonl")),
        ("'with space.jsonl,b.jsonl'", ("/home/me/with space.jsonl", "/home/me/b.jsonl")),
    ],
)
def test_several_files_are_separated_by_commas_else_by_spaces(files, inputs):
    assert planned(f"++input_files={files}", FILES[1]).stages[0].inputs == inputs


def test_a_configuration_can_be_chosen():
    made = planned("--config_name=mine", "--config_path=conf", *FILES)
    assert made.jobs[0].command.argv[3:5] == ("--config-name=mine", "--config-path=/home/me/conf")
    assert "/home/me/conf" in made.stages[0].inputs, "an edited configuration makes other data"


@pytest.mark.parametrize(("prompt", "inputs"), [("mine.yaml", ("/home/me/mine.yaml",)), ("generic/math", ())])
def test_a_prompt_of_your_own_is_an_input(prompt, inputs):
    assert planned(*FILES, f"++prompt_config={prompt}").stages[0].inputs[1:] == inputs


def test_benchmarks_or_files_and_not_both():
    assert "not none" in refused()
    assert "not both" in refused("gsm8k", *FILES)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (("gsm8",), "did you mean 'gsm8k'"),
        (("gsm8k", "++arithmetic.test_count=5"), "is for no benchmark here"),
        (("gsm8k", "--config_name=mine"), "are for training data"),
        ((FILES[0],), "++output_path is missing"),
    ],
)
def test_what_cannot_be_is_refused(line, told):
    assert told in refused(*line)
