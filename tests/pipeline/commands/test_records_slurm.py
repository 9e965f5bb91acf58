"""``ns status``, ``logs``, ``cancel`` and ``resume`` on a real Slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from skills_pipe.pipeline.cli import main
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.plan import Resources
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, plan_of, shell, training_plan, until

pytestmark = pytest.mark.slurm
S = JobState


@pytest.fixture
def name(slurm, tmp_path, monkeypatch) -> str:
    """The path of a configuration for the cluster that runs."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "here.yaml"
    path.write_text(f"executor: slurm\njob_dir: {tmp_path}/jobs\npartition: batch\ncpu_partition: cpu\n")
    return str(path)


@pytest.fixture
def cluster(name):
    return load_cluster(name)


@pytest.fixture
def ns(name, capsys):
    """``ns WORDS --cluster=...``: exit code and output."""

    def call(*words: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main([*words, f"--cluster={name}"])
        return code, capsys.readouterr().out

    return call


def waits_for_file(path, then=""):
    return shell(f"echo waiting; until [ -e {path} ]; do sleep 0.05; done; echo going on; {then or 'true'}")


def test_a_running_chain_shows_its_segment_node_deadline_and_gpu_hours(cluster, ns, tmp_path):
    plan = training_plan(tmp_path, "wait-for-save", jobs=2)
    gpus = replace(plan.jobs[0], resources=Resources(num_gpus=2, time_limit="0-00:10:00"))
    submit(replace(plan, jobs=(gpus, *plan.jobs[1:])), cluster)
    until((tmp_path / "checkpoints" / "job-0").exists, "the first segment runs")
    code, out = ns("status", "exp")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "segment 1 of 2" in rows["sft"] and "GPU-h" in rows["sft"]
    assert "running" in rows["sft-0"] and "may run until" in rows["sft-0"] and "on node" in rows["sft-0"]
    assert "runs only if sft-0 does not finish the work" in rows["sft-1"]
    value = json.loads(ns("status", "exp", "--json")[1])
    first = value["stages"][0]["jobs"][0]
    assert value["state"] == "running" and first["gpus"] == 2
    assert abs(first["deadline"] - first["started_at"] - 600) <= 1
    ns("cancel", "exp", "--wait")


def test_what_a_job_warns_of_is_told_while_it_runs_and_after_it(cluster, ns, tmp_path):
    said = """echo '["no answer ends"]' > $SKILLS_PIPE_WARNINGS_FILE"""
    waits = f"touch {tmp_path}/said; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    run = submit(plan_of(job("a", shell(f"{said}; {waits}"), tmp_path)), cluster)
    until((tmp_path / "said").exists, "it has warned")
    assert ns("status", "exp")[1].splitlines()[2] == "      warning: no answer ends"
    (tmp_path / "go").touch()
    run.wait()
    assert ns("status", "exp")[1].count("warning: no answer ends") == 1
    assert json.loads(ns("status", "exp", "--json")[1])["stages"][0]["warnings"] == ["no answer ends"]


def test_why_a_job_waits_is_told_in_words(cluster, ns, tmp_path):
    plan = plan_of(job("a", shell("true"), tmp_path))
    submission = submit(plan, replace(cluster, sbatch={"begin": "now+1hour"}))
    until(lambda: "begin time" in ns("status", "exp")[1], "Slurm has looked at the job")
    subprocess.run(["scontrol", "hold", submission.job_ids["a"]], check=True)
    _, out = ns("status", "exp")
    # By its owner, or by an administrator where that is who runs the tests.
    assert "a is held by" in out and f"`scontrol release {submission.job_ids['a']}` lets it go" in out
    ns("cancel", "exp", "--wait")


def test_a_failed_run_says_what_failed_and_what_to_do(cluster, ns, name, tmp_path):
    submit(plan_of(job("bad", shell("exit 3"), tmp_path), job("b", shell("true"), tmp_path, "bad")), cluster).wait()
    code, out = ns("status", "exp", "--watch")
    assert code == 1
    _, out = ns("status", "exp")
    assert "exit code 3" in out and "never started: a job before it did not end as it had to" in out
    assert f"`ns logs exp bad --cluster={name}`" in out and f"`ns resume exp --cluster={name}`" in out


def test_cancelling_is_told_from_scancel_and_from_failing(cluster, ns, tmp_path):
    plan = plan_of(job("a", waits_for_file(tmp_path / "go"), tmp_path))
    first = submit(plan, cluster)
    until(lambda: first.states()["a"] is S.RUNNING, "it runs")
    code, out = ns("cancel", "exp", "--wait")
    assert (code, out) == (0, "exp/run-1: stopping a\n")
    assert first.states() == {"a": S.CANCELLED}
    assert "cancelled by `ns cancel`" in ns("status", "exp")[1]
    second = submit(plan, cluster)
    until(lambda: second.states()["a"] is S.RUNNING, "it runs")
    subprocess.run(["scancel", second.job_ids["a"]], check=True)
    second.wait()
    assert "cancelled, and not by `ns`" in ns("status", "exp")[1]


def test_what_is_cancelled_while_it_waits_never_ran(cluster, ns, tmp_path):
    go = tmp_path / "go"
    submit(plan_of(job("a", waits_for_file(go), tmp_path), job("b", shell("true"), tmp_path, "a")), cluster)
    until(lambda: "running" in ns("status", "exp")[1], "the first one runs")
    ns("cancel", "exp", "--wait")
    value = json.loads(ns("status", "exp", "--json")[1])
    started = {stage["name"]: stage["jobs"][0]["started_at"] for stage in value["stages"]}
    assert started["a"] is not None and started["b"] is None
    shown = ns("status", "exp")[1]
    assert "log of a: " in shown and "log of b: " not in shown


def test_one_stage_is_cancelled_and_the_rest_goes_on(cluster, ns, tmp_path):
    jobs = (
        job("a", waits_for_file(tmp_path / "go"), tmp_path),
        job("after-a", shell("true"), tmp_path, "a"),
        job("b", waits_for_file(tmp_path / "go"), tmp_path),
    )
    submission = submit(plan_of(*jobs), cluster)
    until(lambda: [*submission.states().values()].count(S.RUNNING) == 2, "both run")
    assert ns("cancel", "exp", "--stage=a", "--wait")[1] == "exp/run-1: stopping a, after-a\n"
    (tmp_path / "go").touch()
    assert submission.wait().states() == {"a": S.CANCELLED, "after-a": S.CANCELLED, "b": S.SUCCEEDED}


def test_following_goes_on_with_the_next_segment_and_ends_with_the_last(cluster, name, tmp_path):
    submission = submit(training_plan(tmp_path, "wait-for-save", "finish", jobs=3), cluster)
    until((tmp_path / "checkpoints" / "job-0").exists, "the first segment runs")
    program = "import sys; from skills_pipe.pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    follower = subprocess.Popen(
        [sys.executable, "-c", program, "logs", "exp", "sft", "-f", f"--cluster={name}"],
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    seen = ""
    while "is in the mood to wait-for-save" not in seen:
        seen += follower.stdout.readline()
    subprocess.run(["scancel", "--batch", "--signal=USR1", submission.job_ids["sft-0"]], check=True)
    seen += follower.stdout.read()
    assert follower.wait() == 0
    assert "job 1 is in the mood to finish" in seen and "==> sft-1: " in seen
    assert submission.wait().succeeded


def test_the_log_of_a_requeued_job_holds_all_its_starts(cluster, ns, tmp_path):
    plan = plan_of(job("a", waits_for_file(tmp_path / "go"), tmp_path))
    submission = submit(plan, cluster)
    until(lambda: "waiting" in _log(ns), "its first start has written")
    subprocess.run(["scontrol", "requeue", submission.job_ids["a"]], check=True)
    until(lambda: _log(ns).count("waiting") == 2, "its second start has written", at_most=120)
    _, out = ns("status", "exp")
    assert "requeued once" in out
    (tmp_path / "go").touch()
    assert submission.wait().succeeded and "going on" in _log(ns)


def _log(ns) -> str:
    return ns("logs", "exp")[1]


def test_a_chain_that_was_too_short_is_resumed_with_more_jobs(cluster, ns, tmp_path):
    submit(training_plan(tmp_path, "step", jobs=1, total=3), cluster).wait()
    _, out = ns("status", "exp")
    assert "sft has used up its jobs before its work was done" in out and "--num_training_jobs=1" in out
    code, out = ns("resume", "exp", "--num_training_jobs=3")
    assert code == 0 and "exp: queued as" in out
    assert ns("status", "exp", "--watch")[0] == 0
    assert ns("status", "exp", "--json")[1].count('"continued"') == 1
    assert len(list((tmp_path / "checkpoints").glob("job-*"))) == 3


def test_after_slurm_has_forgotten_all_the_status_is_the_same(cluster, ns, tmp_path):
    submission = submit(training_plan(tmp_path, "step", jobs=3), cluster).wait()
    before = ns("status", "exp")[1]
    run = submission.run
    run.write_submission(
        replace(run.submission, job_ids={job: str(900_000 + at) for at, job in enumerate(submission.job_ids)})
    )
    assert ns("status", "exp")[1] == before
    assert all(status.state.good for status in statuses_of(run).values())
