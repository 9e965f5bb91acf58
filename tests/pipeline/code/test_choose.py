"""Which code jobs get: that of the working folder, of an earlier run, or what this process has submitted before."""

import re
from pathlib import Path

import pytest

from skills_pipe.errors import PlanError, StoreError
from skills_pipe.pipeline.cli import main
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.code import choose as room
from skills_pipe.pipeline.code.choose import CodeChoice, choose, remember
from skills_pipe.pipeline.code.package import Code, pack
from skills_pipe.pipeline.code.record import write_record
from skills_pipe.pipeline.decisions.preview import SubmitFlags, preview
from skills_pipe.pipeline.plan import Command, Job, Plan, Resources, Stage
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.pipeline.records.store import RunStore
from skills_pipe.pipeline.records.submission import SubmissionRecord


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    monkeypatch.setattr(room, "_packed", {})


@pytest.fixture
def here(repository, monkeypatch):
    repository.write("train.py", "old")
    monkeypatch.chdir(repository.root)
    return repository


@pytest.fixture
def slurm(tmp_path):
    return ClusterConfig(name="big", executor=ExecutorKind.SLURM, job_dir=str(tmp_path / "jobs"))


LOCAL = ClusterConfig(name="local", job_dir="/nowhere")


def earlier(cluster, expname, code):
    """A submitted run with, or without, code of its own."""
    run = RunStore(Path(cluster.job_dir)).create(expname)
    job = Job(name="a", stage="a", command=Command(argv=("true",)), resources=Resources(), log_dir="/logs")
    run.write_plan(Plan(expname=expname, command="a", stages=(Stage(name="a", output=None),), jobs=(job,)))
    if code:
        write_record(code, run.folder)
    run.write_submission(SubmissionRecord(executor="slurm", cluster="big", owner=ProcessId.current(), submitted_at=0.0))


def test_jobs_on_slurm_get_the_code_of_the_folder(here, slurm):
    assert choose(CodeChoice(), slurm).hash == pack(here.root).hash


def test_jobs_on_this_machine_run_what_is_installed(here):
    assert choose(CodeChoice(), LOCAL) is None
    assert choose(CodeChoice(identifies=True), LOCAL).hash == pack(here.root).hash


def test_what_was_submitted_is_used_again_until_somebody_says_otherwise(here, slurm):
    first = choose(CodeChoice(), slurm)
    here.write("train.py", "changed after a dry run")
    second = choose(CodeChoice(), slurm)
    assert second.hash != first.hash, "a dry run binds nobody"
    remember(second)
    here.write("train.py", "changed after a submission")
    assert choose(CodeChoice(), slurm).hash == second.hash
    assert choose(CodeChoice(reuse=False), slurm).hash not in (first.hash, second.hash)


def test_another_folder_has_code_of_its_own(here, slurm, tmp_path, monkeypatch):
    remember(choose(CodeChoice(), slurm))
    monkeypatch.chdir(tmp_path)
    assert choose(CodeChoice(), slurm).hash == pack(tmp_path).hash


def test_the_code_of_an_experiment_is_that_of_its_newest_run(here, slurm):
    old = pack(here.root)
    earlier(slurm, "first", old)
    here.write("train.py", "newer")
    earlier(slurm, "first", pack(here.root))
    newer = pack(here.root).hash
    here.write("train.py", "now")
    assert choose(CodeChoice(experiment="first"), slurm).hash == newer
    assert choose(CodeChoice(experiment="first/run-1"), slurm).hash == old.hash


def test_an_experiment_that_is_unknown_or_has_no_code_is_refused(here, slurm):
    earlier(slurm, "first", None)
    with pytest.raises(PlanError, match=r"first/run-1 has no code of its own \(--reuse_code_exp\)"):
        choose(CodeChoice(experiment="first"), slurm)
    with pytest.raises(StoreError, match=r"there is no experiment 'frist' \(.*\): did you mean 'first'"):
        choose(CodeChoice(experiment="frist"), slurm)


def identity(code, *, asked):
    stage = Stage(name="a", output="/out/a", options={"steps": 1})
    job = Job(name="a", stage="a", command=Command(argv=("true",)), resources=Resources(), log_dir="/logs")
    flags = SubmitFlags(code=code, rerun_on_code_change=asked)
    seen = preview(Plan(expname="a", command="a", stages=(stage,), jobs=(job,)), LOCAL, flags)
    return seen.identities["a"].digest


def test_code_decides_what_an_output_is_only_where_that_is_asked_for():
    old, new = Code(hash="0" * 20), Code(hash="1" * 20)
    assert identity(old, asked=False) == identity(new, asked=False) == identity(None, asked=False)
    assert identity(old, asked=True) != identity(new, asked=True)
    assert identity(old, asked=True) != identity(old, asked=False)


# --- through the command line


@pytest.fixture
def configuration(tmp_path):
    (tmp_path / "big.yaml").write_text(
        f"executor: slurm\njob_dir: {tmp_path}/jobs\naccount: lab\npartition: gpu\ncontainer_runtime: none\n"
    )
    return f"--cluster={tmp_path}/big.yaml"


def dry_run(configuration, *words):
    return main(["run_cmd", configuration, "--dry_run", "--show_scripts", *words, "python", "train.py"])


def test_the_dry_run_shows_the_folder_of_the_code(here, configuration, tmp_path, capsys):
    assert dry_run(configuration) == 0
    assert f"--chdir={tmp_path}/jobs/code/{pack(here.root).hash} python train.py" in capsys.readouterr().out
    assert not (tmp_path / "jobs" / "code").exists(), "and puts nothing there"


def test_code_that_is_too_large_is_an_error_of_the_dry_run(here, configuration, capsys):
    with open(here.root / "model.bin", "wb") as file:
        file.truncate(2**40)
    assert dry_run(configuration) == 2
    told = capsys.readouterr().err
    total = re.search(r"error: the code of the jobs would be (\d+) MB, and 200 MB is the limit", told)
    assert total and int(total.group(1)) > 1048576, "the package comes along"
    assert "model.bin (1048576 MB)" in told
    here.write(".gitignore", "*.bin\n")
    assert dry_run(configuration) == 0


def test_an_experiment_without_code_is_an_error_of_the_dry_run(here, configuration, capsys):
    assert dry_run(configuration, "--reuse_code_exp=unknown") == 2
    assert "error: there is no experiment 'unknown'" in capsys.readouterr().err


def test_on_this_machine_the_code_of_an_experiment_has_no_effect(here, capsys):
    assert main(["run_cmd", "--dry_run", "--reuse_code_exp=x", "true"]) == 0
    assert "--reuse_code_exp has no effect: only jobs on Slurm bring code along" in capsys.readouterr().out
