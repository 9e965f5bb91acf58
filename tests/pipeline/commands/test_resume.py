"""``ns resume`` and ``ns show`` on real runs of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from skills_pipe.errors import JobFailed, OptionError, StoreError
from skills_pipe.pipeline.cli import main, prepare_data, run_cmd
from skills_pipe.pipeline.commands import resume, show
from skills_pipe.pipeline.records.store import RunStore
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, plan_of, shell, training_plan, until


@pytest.fixture(autouse=True)
def records(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "jobs"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return RunStore(tmp_path / "jobs")


@pytest.fixture
def too_short(tmp_path):
    """A training that has done one of three steps in its only job."""
    with pytest.raises(JobFailed, match="is not finished"):
        submit(training_plan(tmp_path, "step", jobs=1, total=3), local(tmp_path))


def test_a_training_goes_on_from_its_last_checkpoint_with_as_many_jobs_as_one_says(tmp_path, too_short, records):
    submission = resume.COMMAND.call(["exp", "--num_training_jobs=2"], {})
    assert submission.succeeded and str(submission.run) == "exp/run-2"
    assert set(submission.job_ids) == {"sft-0", "sft-1", "convert"}
    assert submission.actions == {"sft": "continue", "convert": "run"}
    assert len(list((tmp_path / "checkpoints").glob("job-*"))) == 3, "each step was made once"


def test_without_a_number_the_chain_is_as_long_as_it_was(too_short):
    with pytest.raises(JobFailed, match="is not finished"):
        resume.COMMAND.call(["exp"], {})


def test_what_is_finished_is_skipped(tmp_path):
    submit(training_plan(tmp_path, "finish", jobs=1), local(tmp_path))
    assert resume.COMMAND.call(["exp"], {}).actions == {"sft": "skip", "convert": "skip"}


def test_a_dry_run_shows_the_plan_and_submits_nothing(too_short, records, capsys):
    capsys.readouterr()
    resume.COMMAND.call(["exp", "--num_training_jobs=2", "--dry_run"], {})
    assert "sft-1" in capsys.readouterr().out
    assert len(records.runs("exp")) == 1


def test_a_run_that_trains_nothing_has_no_chain_to_lengthen(tmp_path):
    submit(plan_of(job("a", shell("true"), tmp_path)), local(tmp_path))
    with pytest.raises(OptionError, match="exp/run-1 trains nothing"):
        resume.COMMAND.call(["exp", "--num_training_jobs=2"], {})


def test_a_chain_without_jobs_is_refused(too_short):
    with pytest.raises(OptionError, match="--num_training_jobs is 0"):
        resume.COMMAND.call(["exp", "--num_training_jobs=0"], {})


def _environment(folder):
    """Of a process that finds the programs of the tests."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "SKILLS_PIPE_JOB_DIR": str(folder / "jobs")}


_LIVE = """
import sys
from pathlib import Path
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, plan_of, shell
folder = Path(sys.argv[1])
talk = f"touch {folder}/runs; until [ -e {folder}/go ]; do sleep 0.02; done"
submit(plan_of(job("talk", shell(talk), folder)), local(folder))
"""


def test_what_still_runs_is_not_started_a_second_time(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", _LIVE, str(tmp_path)], stdout=subprocess.DEVNULL, env=_environment(tmp_path)
    )
    until((tmp_path / "runs").exists, "the job runs")
    with pytest.raises(StoreError, match=r"exp/run-1 still runs: talk: wait for it, or .*`ns cancel exp --wait`"):
        resume.COMMAND.call(["exp"], {})
    (tmp_path / "go").touch()
    process.wait()
    assert resume.COMMAND.call(["exp"], {}).succeeded, "negative control: once it has ended it may"


def test_the_record_says_that_it_was_resumed(too_short, capsys):
    resume.COMMAND.call(["exp", "--num_training_jobs=2"], {})
    capsys.readouterr()
    assert show.COMMAND.call(["exp"], {}) == 0
    assert "command  ns resume --num_training_jobs=2 exp" in capsys.readouterr().out


# show


@pytest.fixture
def data(tmp_path, capsys):
    """Benchmark data that ``ns`` has made."""
    prepare_data(benchmarks=("arithmetic",), data_dir=str(tmp_path / "data"))
    capsys.readouterr()


def test_a_run_is_shown_with_what_it_was_made_of(data, capsys):
    assert main(["show", "prepare-data"]) == 0
    out = capsys.readouterr().out
    assert "command  ns prepare_data" in out and "code  the installed package" in out
    assert "arithmetic  succeeded" in out and "benchmark_data, 1 file" in out
    assert "job prepare-data-arithmetic  succeeded · id local-1" in out


def test_two_runs_are_compared(tmp_path, data, capsys):
    assert main(["show", "prepare-data", "--compare=prepare-data/run-1"]) == 0
    assert capsys.readouterr().out == "the same options, inputs and code\n"
    words = ["prepare_data", "arithmetic", f"--data_dir={tmp_path}/data", "++arithmetic.test_count=100"]
    assert main([*words, "--on_change=restart"]) == 0
    capsys.readouterr()
    assert main(["show", "prepare-data/run-1", "--compare=prepare-data"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "arithmetic",
        '    ++arithmetic.test_count: (not set) -> "100"',
    ]


def test_an_output_that_was_made_anew_is_not_taken_for_the_older_runs(tmp_path, data, capsys):
    words = ["prepare_data", "arithmetic", f"--data_dir={tmp_path}/data", "++arithmetic.test_count=100"]
    main([*words, "--on_change=restart"])
    capsys.readouterr()
    main(["show", "prepare-data/run-1"])
    assert "made otherwise since, or before" in capsys.readouterr().out
    main(["show", "prepare-data"])
    assert "made otherwise" not in capsys.readouterr().out


def test_scripts_are_printed_as_they_were_submitted(data, records, capsys):
    assert main(["show", "prepare-data", "--scripts"]) == 0
    run = records.latest("prepare-data")
    script = run.script_path("prepare-data-arithmetic")
    assert capsys.readouterr().out == f"==> {script} <==\n{script.read_text()}\n"


def test_json_holds_plan_identities_and_command(data, capsys):
    assert main(["show", "prepare-data", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["plan"]["command"] == "prepare_data" and value["state"] == "succeeded"
    assert value["command_line"]["words"][0] == "prepare_data"
    assert len(value["identities"]["arithmetic"]["digest"]) == 64


def test_the_configuration_of_a_training_is_shown_whole(tmp_path, capsys):
    plan = training_plan(tmp_path, "finish", jobs=1)
    argv = ("python", "-m", "skills_pipe.training.sft", "policy.model_name=m", "data.train_data_path=d", "++sft.seed=7")
    trains = replace(plan.jobs[0], command=replace(plan.jobs[0].command, argv=argv))
    run = RunStore(tmp_path / "jobs").create("exp")
    run.write_plan(replace(plan, jobs=(trains, *plan.jobs[1:])))
    capsys.readouterr()
    assert main(["show", "exp/run-1", "--config"]) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert (tree["sft"]["seed"], tree["policy"]["model_name"]) == (7, "m")
    assert len(tree["policy"]) > 5, "defaults are there too"


def test_a_run_without_training_has_no_configuration(data):
    with pytest.raises(StoreError, match="trains nothing"):
        show.COMMAND.call(["prepare-data", "--config"], {})


def test_two_ways_to_show_exclude_each_other(data):
    with pytest.raises(OptionError, match="--scripts and --json exclude each other"):
        show.COMMAND.call(["prepare-data", "--scripts", "--json"], {})


def test_secrets_on_a_command_line_are_not_recorded(records, capsys):
    assert run_cmd(command="HF_TOKEN=hf-secret-value true", expname="s").succeeded
    capsys.readouterr()
    main(["show", "s"])
    assert "HF_TOKEN=***" in capsys.readouterr().out
    assert "hf-secret-value" not in (records.latest("s").folder / "command.json").read_text()
