"""``ns data preview`` and ``ns data doctor``: in the foreground here, a job on a cluster."""

import json
import os
import subprocess
import sys

import pytest

from skills_pipe.errors import UserError
from skills_pipe.pipeline import cli
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands import data_doctor, data_preview
from skills_pipe.pipeline.options.declaration import build

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")


def argv_of(command, extras=(), **options):
    plan = command.plan(build(command.COMMAND.options, options), extras, HERE)
    assert [job.resources.num_gpus for job in plan.jobs] == [0]
    return plan.jobs[0].command.argv


def test_a_preview_passes_on_what_was_asked_for():
    data = {"file": "rows.jsonl", "hf_model": "org/model", "validation_data": "v.jsonl"}
    asked = {"num_samples": "2", "first": "5", "seed": "1", "validation": True, "ids": True, "html": "out.html"}
    argv = argv_of(data_preview, ("++data.add_bos=true",), **data, **asked)
    assert argv == (
        *("python", "-m", "skills_pipe.training.data.preview", "/home/me/rows.jsonl"),
        *("--hf_model=org/model", "--validation_data=/home/me/v.jsonl"),
        *("--num_samples=2", "--first=5", "--seed=1", "--validation", "--ids", "--html=/home/me/out.html"),
        "++data.add_bos=true",
    )


def test_a_doctor_passes_on_what_was_asked_for():
    argv = argv_of(data_doctor, config="sft.yaml", max_rows="0", lengths="512,1024", json=True, png="a.png")
    assert argv == (
        *("python", "-m", "skills_pipe.training.data.doctor", "--config=/home/me/sft.yaml", "--max_rows=0"),
        *("--lengths=512,1024", "--json", "--png=/home/me/a.png"),
    )


@pytest.mark.parametrize(
    ("given", "seen", "is_input"),
    [
        ("rows.jsonl", "/home/me/rows.jsonl", True),
        ("data/rows.jsonl", "/home/me/data/rows.jsonl", True),
        ("/data/folder", "/data/folder", True),
        ("org/dataset", "org/dataset", False),
        ("org/dataset-v1.5", "org/dataset-v1.5", False),
        ("squad", "squad", False),
    ],
)
def test_data_on_the_hub_stays_an_id(given, seen, is_input):
    options = build(data_doctor.DataDoctorOptions, {"file": given})
    plan = data_doctor.plan(options, (), HERE)
    assert plan.jobs[0].command.argv[3] == seen
    assert (seen in plan.stages[0].inputs) is is_input


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with rows; the last of them cannot be trained on."""
    rows = [{"input": "1 + 1?", "output": "2"}, {"input": "1 + 2?"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_here_it_runs_in_the_foreground_with_its_own_exit_code(folder, capfd):
    from tests.training.tiny import save_tiny_model

    save_tiny_model(folder / "model")
    words = ["rows.jsonl", "--hf_model=model", "++policy.train_global_batch_size=1", "++data.add_eos=true"]
    assert cli.main(["data", "doctor", *words]) == 1
    assert f"({folder}/rows.jsonl:2)" in capfd.readouterr().out
    assert cli.main(["data", "doctor", *words, "++data.on_bad_row=skip", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["train"]["report"]["documents"] == 1
    assert sorted(path.name for path in folder.iterdir()) == ["model", "rows.jsonl"]


def test_a_dry_run_shows_the_job_and_runs_nothing(folder, capsys):
    cli.data_preview(file="rows.jsonl", dry_run=True, hf_model=str(folder))
    assert "ns data preview" in capsys.readouterr().out


def test_wrong_keys_are_found_before_a_job_is(folder):
    with pytest.raises(UserError, match=r"unknown key data\.ad_bos.*did you mean"):
        cli.data_preview(ctx=cli.wrap_arguments("++data.ad_bos=true"), file="rows.jsonl", dry_run=True)


def test_who_has_read_enough_may_leave(folder):
    """As ``ns data preview ... | head`` does; what is piped is the output of the program that the command runs."""
    from tests.training.tiny import save_tiny_model

    save_tiny_model(folder / "model")
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "skills_pipe.pipeline.cli", "data", "preview", "rows.jsonl", "--hf_model=model"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (ended.stderr, ended.returncode) == ("", 141)
