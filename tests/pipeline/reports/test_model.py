"""Where the model of a plan is, told at the end of a run or when it is queued."""

import json
from pathlib import Path

import pytest

from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands import convert, run_cmd, sft
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.reports.model import MadeModel

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")
CONVERSION = {"input_model": "out", "output_model": "model"}
TRAINING = {"output_dir": "out", "hf_model": "org/model", "training_data": "rows.jsonl"}


def plan_of(command, **options) -> Plan:
    return command.plan(build(command.COMMAND.options, options), (), HERE)


def model_of(command, **options) -> MadeModel | None:
    return MadeModel.of(plan_of(command, **options), Path)


@pytest.mark.parametrize(
    ("command", "options", "folder", "archive"),
    [
        (sft, TRAINING, "/home/me/out/final_hf_model", None),
        (sft, {**TRAINING, "average_steps": "2,4", "final_hf_path": "best"}, "/home/me/best", None),
        (convert, CONVERSION, "/home/me/model", None),
        (convert, {**CONVERSION, "average_steps": "2,4", "archive": "a.nemo"}, "/home/me/model", "/home/me/a.nemo"),
        (convert, {**CONVERSION, "input_model": "b.nemo"}, "/home/me/model", None),
    ],
)
def test_the_model_is_the_last_one_that_a_plan_makes(command, options, folder, archive):
    assert model_of(command, **options) == MadeModel(folder=Path(folder), archive=Path(archive) if archive else None)


def test_a_plan_without_a_model_has_none():
    words = build(run_cmd.COMMAND.options, {"command": "true"})
    assert MadeModel.of(run_cmd.plan(words, (), HERE), Path) is None


def test_what_the_model_says_of_itself(tmp_path):
    made = MadeModel(folder=tmp_path, archive=Path("/a.nemo"))
    assert made.made() == f"model: {tmp_path} (archive /a.nemo)"
    (tmp_path / "lineage.json").write_text(json.dumps({"step": 6, "metrics": {"val:val_loss": 1.23456}}))
    assert made.made() == f"model: {tmp_path} (step 6, validation loss 1.2346, archive /a.nemo)"
    assert made.to_come() == f"model, once it is made: {tmp_path}, archive /a.nemo"
    (tmp_path / "lineage.json").write_text(json.dumps({"averaged_from": {"a": {}, "b": {}}}))
    assert MadeModel(folder=tmp_path).made() == f"model: {tmp_path} (average of 2 steps)"
