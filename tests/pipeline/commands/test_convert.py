"""``ns convert``: one conversion, or several and their average."""

import pytest

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.convert import ConvertOptions, plan
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.plan import Plan

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")


def planned(**options: object) -> Plan:
    return plan(build(ConvertOptions, {"input_model": "run", "output_model": "model", **options}), (), HERE)


def test_the_last_checkpoint_becomes_a_model():
    made = planned()
    assert made.jobs[0].command.argv == (
        "python",
        "-m",
        "skills_pipe.training.checkpoint.export",
        "--training_folder=/home/me/run",
        "--hf_ckpt_path=/home/me/model",
        "--step=last",
    )
    assert made.stages[0].inputs == ("/home/me/run/checkpoints",)
    assert made.jobs[0].resources.num_gpus == 0


def test_steps_are_averaged():
    made = planned(average_steps="10,20", expname="c")
    assert [job.name for job in made.jobs] == ["c-convert-ckpt-step_10", "c-convert-ckpt-step_20", "c-average-ckpt"]
    assert "--output=/home/me/model" in made.jobs[-1].command.argv


def test_one_step_or_an_average_and_not_both():
    with pytest.raises(OptionError, match="exclude each other"):
        planned(average_steps="10,20", conversion_step="10")


def test_adapters_alone_are_another_model():
    alone, merged = planned(adapter_only=True), planned()
    assert "--adapter_only" in alone.jobs[0].command.argv
    assert "--adapter_only" not in merged.jobs[0].command.argv
    assert alone.stages[0].options != merged.stages[0].options
    with pytest.raises(OptionError, match="exclude each other"):
        planned(adapter_only=True, average_steps="10,20")
