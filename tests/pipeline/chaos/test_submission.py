"""Submissions that are killed half-way, and submissions that meet: nothing queued is ever without a record."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.errors import PlanError, StoreError
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.submit import submit
from tests.pipeline.chaos.scenes import ask, ended, queue, starts, words
from tests.pipeline.programs import job, plan_of, shell, training_plan, until

pytestmark = pytest.mark.slurm

_SUBMIT = """
import os, sys
from pathlib import Path
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import training_plan
folder = Path(sys.argv[1])
(folder / "launcher").write_text(str(os.getpid()))
cluster = ClusterConfig(name="test", executor=ExecutorKind.SLURM, job_dir=str(folder / "jobs"))
submit(training_plan(folder, "step", jobs=3, total=2), cluster)
"""

# The real program, and then a kill: of the launcher, of its script, or of both.
_KILLER = """\
#!/bin/bash
{real} "$@"
code=$?
[ "$1" = --version ] || echo >> {calls}
if [ "$(wc -l < {calls})" = {call} ]; then
  launcher=$(< {launcher})
  script=$(pgrep -P "$launcher")
  kill -9 {victims}
fi
exit "$code"
"""
LAUNCHER, SCRIPT = "$launcher", "$script"


def killed(folder: Path, program: str, call: int, victims: str) -> Run:
    """The run of a submission that was killed right after the ``call``-th call of a program of Slurm."""
    (folder / "bin").mkdir()
    real = shutil.which(program)
    text = _KILLER.format(real=real, calls=folder / "calls", call=call, victims=victims, launcher=folder / "launcher")
    (folder / "bin" / program).write_text(text)
    (folder / "bin" / program).chmod(0o755)
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    ns = subprocess.run([sys.executable, "-c", _SUBMIT, str(folder)], env=environment, check=False, capture_output=True)
    assert ns.returncode == (-signal.SIGKILL if LAUNCHER in victims else 1), ns.stderr.decode()
    return Run(folder / "jobs" / "experiments" / "exp" / "run-1")


@pytest.mark.parametrize(("program", "call"), [("sbatch", 1), ("sbatch", 3), ("squeue", 1)])
def test_killed_before_all_jobs_are_accepted_nothing_stays_queued(cluster, tmp_path, capfd, program, call):
    """The first id is not even written down: its job is known by its script, which lies in the folder of the run."""
    run = killed(tmp_path, program, call, f"{LAUNCHER} {SCRIPT}")
    assert queue() and run.submission is None
    assert statuses_of(run) == {}
    until(lambda: not queue(), "the jobs are cancelled")
    assert "exp/run-1: its submission was broken off; cancelled what it had queued: sft-0" in capfd.readouterr().err
    assert words(ended(submit(training_plan(tmp_path, "step", jobs=3, total=2), cluster)))[-1] == "succeeded"


def test_killed_between_acceptance_and_release_it_is_completed(cluster, tmp_path, capfd):
    run = killed(tmp_path, "ln", 1, f"{LAUNCHER} {SCRIPT}")
    assert len(queue()) == 4 and run.submission is None
    assert set(statuses_of(run)) == {"sft-0", "sft-1", "sft-2", "convert"}
    assert "exp/run-1: its submission was broken off after all jobs were queued" in capfd.readouterr().err
    until(lambda: all(status.state.ended for status in statuses_of(run).values()), "all jobs have ended")
    assert (tmp_path / "model").exists() and run.draft is None


def test_when_only_the_launcher_is_killed_its_script_goes_on(cluster, tmp_path):
    run = killed(tmp_path, "sbatch", 2, LAUNCHER)
    until((run.folder / "jobs.tsv").exists, "the script has queued all jobs")
    assert len(statuses_of(run)) == 4 and run.submission is not None
    until(lambda: all(status.state.ended for status in statuses_of(run).values()), "all jobs have ended")
    assert (tmp_path / "model").exists()


def test_when_only_the_script_is_killed_the_launcher_takes_all_back(cluster, tmp_path):
    run = killed(tmp_path, "sbatch", 3, SCRIPT)
    until(lambda: not queue(), "the jobs are cancelled")
    assert run.submission is None and statuses_of(run) == {}


def test_a_slow_script_that_was_taken_for_dead_takes_its_jobs_back(cluster, tmp_path):
    """Settling takes its place; one of the two decides, never both."""
    run = killed(tmp_path, "sbatch", 1, f"{LAUNCHER}; kill -STOP {SCRIPT}")
    script = stopped_script(run)
    assert statuses_of(run) == {}
    os.kill(script, signal.SIGCONT)
    until(lambda: not Path(f"/proc/{script}").exists(), "the script has ended")
    until(lambda: not queue(), "the jobs are cancelled")
    assert (run.folder / "jobs.tsv").read_text() == "" and run.submission is None


def stopped_script(run: Run) -> int:
    """The process of a submission script that was stopped."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "T" and f"{run.folder.parents[3]}/bin:".encode() in environment:
            return int(entry.name)
    raise AssertionError("no script is stopped")


def test_ns_cancel_settles_too_and_the_next_submission_as_well(cluster, tmp_path, capfd):
    killed(tmp_path, "sbatch", 2, f"{LAUNCHER} {SCRIPT}")
    submit(plan_of(job("a", shell("true"), tmp_path)), cluster)
    assert "cancelled what it had queued: sft-0, sft-1\n" in capfd.readouterr().err
    until(lambda: not queue(), "the jobs are cancelled")


def test_nothing_comes_after_a_submission_that_broke_off(cluster, tmp_path):
    """It has no jobs, and so none that failed."""
    killed(tmp_path, "sbatch", 2, f"{LAUNCHER} {SCRIPT}")
    plan = replace(plan_of(job("a", shell("true"), tmp_path)), expname="after", run_after=("exp",))
    with pytest.raises(PlanError, match=r"run exp/run-1 is being submitted, or its submission broke off"):
        submit(plan, cluster)
    until(lambda: not queue(), "the jobs are cancelled")


# The same command twice


def test_of_two_submissions_at_the_same_time_one_is_refused(cluster, tmp_path):
    """They write the same output."""
    argv = [sys.executable, "-c", _SUBMIT, str(tmp_path)]
    both = [subprocess.Popen(argv, stderr=subprocess.PIPE) for _ in range(2)]
    errors = [ns.communicate()[1].decode() for ns in both]
    assert sorted(ns.returncode for ns in both) == [0, 1]
    assert "is being written by stage 'sft' of another run" in "".join(errors)
    until(lambda: not queue(), "all jobs have ended")
    assert starts(tmp_path) == 2


def test_a_second_submission_of_a_running_command_is_refused_and_harms_nothing(cluster, tmp_path):
    plan = training_plan(tmp_path, "wait-for-save", "finish", jobs=2)
    first = submit(plan, cluster)
    until((tmp_path / "checkpoints" / "job-0").exists, "the first run runs")
    with pytest.raises(StoreError, match="is being written by stage 'sft' of another run"):
        submit(plan, cluster)
    ask("scancel", "--batch", "--signal=USR1", first.job_ids["sft-0"])
    assert words(ended(first)) == ["continued", "succeeded", "succeeded"]
