"""Plans on a real Slurm: dependencies, chains, undo, secrets."""

from __future__ import annotations

import shlex
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.errors import PlanError, StoreError
from skills_pipe.pipeline.cli import main
from skills_pipe.pipeline.cluster.config import ClusterConfig, EnvVar, ExecutorKind
from skills_pipe.pipeline.display.plan import show_scripts
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.plan import Launch, Plan, Resources
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.scripts.setting import batch_log
from skills_pipe.pipeline.submit import OnChange, Submission, SubmitFlags, preview, submit
from tests.pipeline.programs import job, make, plan_of, shell, training_plan, until

pytestmark = pytest.mark.slurm
S = JobState


@pytest.fixture
def cluster(slurm, tmp_path) -> ClusterConfig:
    return ClusterConfig(name="test", executor=ExecutorKind.SLURM, job_dir=str(tmp_path / "jobs"))


def queue() -> list[str]:
    """Names of the jobs that run or wait."""
    return subprocess.run(["squeue", "-h", "-o", "%j"], capture_output=True, text=True, check=True).stdout.split()


def ended(submission: Submission) -> dict[str, JobState]:
    until(lambda: all(state.ended for state in submission.states().values()), "all jobs have ended", at_most=300)
    return submission.states()


def test_jobs_run_in_the_order_of_their_edges(cluster, tmp_path):
    log = lambda name: shell(f"echo {name} >> {tmp_path}/order")  # noqa: E731
    plan = plan_of(job("a", log("a"), tmp_path), job("b", log("b"), tmp_path, "a"), job("c", log("c"), tmp_path, "b"))
    submission = submit(plan, cluster)
    assert ended(submission) == {"a": S.SUCCEEDED, "b": S.SUCCEEDED, "c": S.SUCCEEDED}
    assert (tmp_path / "order").read_text().split() == ["a", "b", "c"]
    assert submission.succeeded


def test_what_waits_for_a_failed_job_is_cancelled_and_nothing_hangs(cluster, tmp_path):
    plan = plan_of(
        job("bad", shell("exit 3"), tmp_path),
        job("waits", shell("true"), tmp_path, "bad"),
        job("waits-too", shell("true"), tmp_path, "waits"),
        job("other", shell("true"), tmp_path),
    )
    submission = submit(plan, cluster)
    assert ended(submission) == {"bad": S.FAILED, "waits": S.CANCELLED, "waits-too": S.CANCELLED, "other": S.SUCCEEDED}
    assert not submission.succeeded
    assert queue() == []


def test_a_finished_output_is_skipped_the_next_time(cluster, tmp_path):
    plan = plan_of(job("a", make(tmp_path / "out"), tmp_path), a=tmp_path / "out")
    assert ended(submit(plan, cluster)) == {"a": S.SUCCEEDED}
    again = submit(plan, cluster)
    assert again.actions == {"a": "skip"}
    assert again.states() == {} and again.succeeded


@pytest.mark.parametrize("sealed", [True, False])
def test_what_a_run_before_is_still_making_counts_as_it_will_be(cluster, tmp_path, sealed):
    """What lies there meanwhile, an older version or half of one, is not what the jobs will read."""
    data, copy, go = (tmp_path / name for name in ("data", "copy", "go"))

    def first(text: str) -> Plan:
        write = shlex.join(make(data, text))
        hold = job("a", shell(f"echo half >> {data}; until [ -e {go} ]; do sleep 0.05; done; {write}"), tmp_path)
        plan = plan_of(hold, a=data)
        return replace(plan, expname="first", stages=(replace(plan.stages[0], options={"text": text}),))

    def second() -> Plan:
        plan = plan_of(job("b", make(copy), tmp_path), b=copy)
        stages = (replace(plan.stages[0], inputs=(str(data),)),)
        return replace(plan, expname="second", stages=stages, run_after=("first",))

    go.touch()
    ended(submit(first("one"), cluster))
    ended(submit(second(), cluster))
    assert submit(second(), cluster).actions == {"b": "skip"}
    go.unlink()
    if not sealed:
        (tmp_path / "data.manifest.json").unlink()
    running = submit(first("two"), cluster, flags=SubmitFlags(on_change=OnChange.CONTINUE))
    until(lambda: running.states()["a"] is S.RUNNING, "it runs")
    try:
        with pytest.raises(PlanError, match=f'{copy} was made otherwise: input {data}: "stage:.*" -> "stage:'):
            submit(second(), cluster)
        again = submit(second(), cluster, flags=SubmitFlags(on_change=OnChange.RESTART))
    finally:
        go.touch()
    assert ended(running) == {"a": S.SUCCEEDED} and ended(again) == {"b": S.SUCCEEDED}
    assert submit(second(), cluster).actions == {"b": "skip"}


# Chains


def test_a_chain_goes_on_until_the_work_is_done_and_cancels_the_rest(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, "step", jobs=3, total=2), cluster)
    assert ended(submission) == {
        "sft-0": S.CONTINUED,
        "sft-1": S.SUCCEEDED,
        "sft-2": S.NOT_NEEDED,
        "convert": S.SUCCEEDED,
    }
    assert (tmp_path / "model").exists() and submission.succeeded


def test_the_next_segment_is_the_retry_of_one_that_crashed(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, "crash", "finish", jobs=2), cluster)
    assert list(ended(submission).values()) == [S.FAILED, S.SUCCEEDED, S.SUCCEEDED]


def test_a_program_that_gives_up_stops_its_chain_and_what_hangs_on_it(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, "refuse", jobs=3), cluster)
    assert list(ended(submission).values()) == [S.FAILED, S.CANCELLED, S.CANCELLED, S.CANCELLED]
    assert len(list((tmp_path / "checkpoints").glob("job-*"))) == 1
    assert queue() == []


def test_two_crashes_in_a_row_without_a_new_step_stop_the_chain(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, "crash", jobs=4), cluster)
    assert list(ended(submission).values()) == [S.FAILED, S.FAILED, S.CANCELLED, S.CANCELLED, S.CANCELLED]
    assert len(list((tmp_path / "checkpoints").glob("job-*"))) == 2


@pytest.mark.slow
def test_negative_control_crashes_that_each_made_a_step_do_not(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, *["step-and-crash"] * 3, "finish", jobs=4, total=9), cluster)
    assert list(ended(submission).values()) == [S.FAILED] * 3 + [S.SUCCEEDED] * 2


def test_the_save_now_file_appears_when_slurm_says_that_time_is_short(cluster, tmp_path):
    plan = training_plan(tmp_path, "wait-for-save", "finish", jobs=2)
    submission = submit(plan, cluster)
    until(lambda: submission.states()["sft-0"] is S.RUNNING, "the first segment runs")
    until((tmp_path / "checkpoints" / "job-0").exists, "its program runs")
    subprocess.run(["scancel", "--batch", "--signal=USR1", submission.job_ids["sft-0"]], check=True)
    assert list(ended(submission).values()) == [S.CONTINUED, S.SUCCEEDED, S.SUCCEEDED]


def test_cancelling_takes_the_whole_chain(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, "wait-for-save", jobs=3), cluster)
    until((tmp_path / "checkpoints" / "job-0").exists, "the first segment runs")
    assert submission.cancel() == ["sft-0", "sft-1", "sft-2", "convert"]
    assert set(ended(submission).values()) <= {S.CANCELLED, S.CONTINUED}
    assert len(list((tmp_path / "checkpoints").glob("job-*"))) == 1
    assert queue() == []


def test_a_segment_that_is_cancelled_by_hand_ends_its_chain(cluster, tmp_path):
    submission = submit(training_plan(tmp_path, "wait-for-save", "finish", jobs=3), cluster)
    until((tmp_path / "checkpoints" / "job-0").exists, "the first segment runs")
    subprocess.run(["scancel", submission.job_ids["sft-0"]], check=True)
    states = ended(submission)
    assert states["sft-0"] is S.CANCELLED and not set(states.values()) & {S.SUCCEEDED, S.NOT_NEEDED}
    assert len(list((tmp_path / "checkpoints").glob("job-*"))) == 1
    assert queue() == []


@pytest.mark.slow
def test_preemption_uses_up_no_segment_and_is_no_stall(cluster, tmp_path):
    """Twice before its first step: two crashes at that point would end the chain."""
    submission = submit(training_plan(tmp_path, "wait-for-save", "wait-for-save", "finish", jobs=2), cluster)
    for start in range(2):
        until((tmp_path / "checkpoints" / f"job-{start}").exists, "it runs", at_most=300)
        subprocess.run(["scontrol", "requeue", submission.job_ids["sft-0"]], check=True)
    assert list(ended(submission).values()) == [S.SUCCEEDED, S.NOT_NEEDED, S.SUCCEEDED]


def test_a_segment_knows_when_it_will_be_killed(cluster, tmp_path):
    plan = training_plan(tmp_path, "finish", jobs=1)
    show = f"echo ${{SKILLS_PIPE_DEADLINE:-none}} > {tmp_path}/deadline; exec {shlex.join(plan.jobs[0].command.argv)}"
    first = replace(plan.jobs[0], command=replace(plan.jobs[0].command, argv=shell(show)))
    assert submit(replace(plan, jobs=(first, plan.jobs[1])), cluster).wait().succeeded
    assert int((tmp_path / "deadline").read_text()) > time.time() + 300


# Runs after runs


def test_a_run_waits_for_the_live_one_before_it(cluster, tmp_path):
    gate = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    first = submit(plan_of(job("a", shell(gate), tmp_path)), cluster)
    second = submit(_after(plan_of(job("b", shell("true"), tmp_path)), first), cluster)
    assert second.states() == {"b": S.PENDING}
    (tmp_path / "go").touch()
    assert ended(second) == {"b": S.SUCCEEDED}


def test_no_segment_runs_when_the_run_before_fails(cluster, tmp_path):
    """Each segment repeats the edge: a segment whose predecessor was cancelled would start otherwise."""
    fails = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 1"
    first = submit(plan_of(job("a", shell(fails), tmp_path)), cluster)
    second = submit(_after(training_plan(tmp_path, "finish", jobs=3), first), cluster)
    (tmp_path / "go").touch()
    assert set(ended(second).values()) == {S.CANCELLED}
    assert not (tmp_path / "checkpoints").exists()


def test_a_run_after_a_failed_one_is_refused(cluster, tmp_path):
    first = submit(plan_of(job("a", shell("exit 1"), tmp_path)), cluster)
    ended(first)
    with pytest.raises(PlanError, match="'exp' did not end well: its stage 'a' failed"):
        submit(_after(plan_of(job("b", shell("true"), tmp_path)), first), cluster)


def test_two_live_runs_never_write_the_same_output(cluster, tmp_path):
    plan = training_plan(tmp_path, "wait-for-save", jobs=2)
    first = submit(plan, cluster)
    until((tmp_path / "checkpoints" / "job-0").exists, "the first run runs")
    with pytest.raises(StoreError, match="is being written by stage 'sft' of another run"):
        submit(plan, cluster)
    first.cancel()
    ended(first)


def test_a_job_that_slurm_does_not_know_is_not_waited_for(cluster, tmp_path):
    """Slurm would start what waits for it at once."""
    plan = replace(plan_of(job("b", shell(f"touch {tmp_path}/ran"), tmp_path)), run_after=("jobid:999999",))
    with pytest.raises(PlanError, match="Slurm does not know job 999999 any more"):
        submit(plan, cluster)
    assert queue() == [] and not (tmp_path / "ran").exists()


def test_negative_control_a_job_that_slurm_knows_is_waited_for(cluster, tmp_path):
    first = submit(plan_of(job("a", shell("true"), tmp_path)), cluster)
    plan = plan_of(job("b", shell("true"), tmp_path))
    second = submit(replace(plan, expname="second", run_after=(f"jobid:{first.job_ids['a']}",)), cluster)
    assert ended(second) == {"b": S.SUCCEEDED}


def test_jobs_of_a_live_run_that_have_ended_already_are_not_waited_for(cluster, tmp_path):
    gate = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    jobs = job("over", shell("true"), tmp_path), job("waits", shell(gate), tmp_path)
    first = submit(plan_of(*jobs), cluster)
    until(lambda: first.states()["over"] is S.SUCCEEDED, "one of two has ended")
    record = Run(first.run_dir).submission
    forgotten = replace(record, job_ids={**record.job_ids, "over": "999999"})
    Run(first.run_dir).write_submission(forgotten)
    second = submit(_after(plan_of(job("b", shell("true"), tmp_path)), first), cluster)
    (tmp_path / "go").touch()
    assert ended(second) == {"b": S.SUCCEEDED}


def _after(plan: Plan, before: Submission) -> Plan:
    return replace(plan, expname="second", run_after=(str(before.run_dir),))


# Submission


def test_a_dry_run_without_slurm_shows_the_very_bytes_that_are_submitted(cluster, tmp_path, monkeypatch, capsys):
    plan = training_plan(tmp_path, "finish", jobs=2)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("PATH", str(tmp_path))
        seen = preview(plan, cluster)
        show_scripts(seen)
    submission = submit(plan, cluster)
    shown = capsys.readouterr().out
    for path in (*sorted((submission.run_dir / "scripts").iterdir()), submission.run_dir / "submit.sh"):
        assert f"==> {path} <==\n{path.read_text()}" in shown
    assert 'sbatch --parsable --hold --export=ALL "--dependency=afternotok:$id_sft_0"' in shown
    assert submission.wait().succeeded


def test_a_refused_job_takes_back_all_before_it(cluster, tmp_path):
    good = job("a", shell(f"touch {tmp_path}/ran"), tmp_path)
    bad = replace(job("b", shell("true"), tmp_path, "a"), resources=Resources(partition="nowhere"))
    with pytest.raises(PlanError, match=r"^sbatch refused b: .*invalid partition"):
        submit(plan_of(good, bad), cluster)
    assert queue() == []
    assert not (tmp_path / "ran").exists()


def test_secrets_reach_the_job_and_nothing_else_of_the_submitter_does(cluster, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf-value-of-the-token")
    monkeypatch.setenv("PLANTED", "value-of-the-submitter")
    monkeypatch.setenv("SBATCH_EXPORT", "ALL")  # wins over what a script says
    named = replace(cluster, env=(EnvVar(name="MODE", value="a b; $HOME"),))
    show = shell(f"env > {tmp_path}/env")
    submission = submit(plan_of(job("a", show, tmp_path)), named)
    assert ended(submission) == {"a": S.SUCCEEDED}
    environment = (tmp_path / "env").read_text().splitlines()
    assert "HF_TOKEN=hf-value-of-the-token" in environment
    assert "MODE=a b; $HOME" in environment
    assert not any(line.startswith("PLANTED=") for line in environment)
    holders = [path for path in submission.run_dir.rglob("*") if path.is_file() and b"hf-value" in path.read_bytes()]
    assert [path.name for path in holders] == ["secrets.env"]
    assert holders[0].stat().st_mode & 0o777 == 0o600


def test_logs_lie_in_a_folder_whose_name_looks_like_a_pattern_of_slurm(cluster, tmp_path):
    folder = tmp_path / "50%_%j"
    submission = submit(plan_of(job("a", shell("echo done"), folder)), cluster)
    assert ended(submission) == {"a": S.SUCCEEDED}
    step = Path(Run(submission.run_dir).submission.logs["a"])
    assert step.parent == folder / "logs" and step.read_text() == "done\n"
    assert batch_log(step).exists(), "that of the batch script too"
    assert not list(tmp_path.glob("50%_[0-9]*")), "and nowhere else"


def test_one_process_runs_for_each_gpu_on_each_node(cluster, tmp_path):
    show = shell(f"echo $SLURM_PROCID $SLURM_NTASKS $SLURM_JOB_NUM_NODES > {tmp_path}/rank-$SLURM_PROCID")
    ranks = job("a", show, tmp_path)
    ranks = replace(
        ranks,
        command=replace(ranks.command, launch=Launch.PER_GPU),
        resources=Resources(num_nodes=2, num_gpus=2, partition="batch"),
    )
    assert ended(submit(plan_of(ranks), cluster)) == {"a": S.SUCCEEDED}
    assert sorted(path.read_text().split() for path in tmp_path.glob("rank-*")) == [
        [str(r), "4", "2"] for r in range(4)
    ]


def test_ranks_get_the_cores_that_the_job_has_for_each_of_them(cluster, tmp_path):
    """srun does not take them over by itself since Slurm 22.05."""
    show = shell(f"echo $SRUN_CPUS_PER_TASK $SLURM_CPUS_PER_TASK > {tmp_path}/cores-$SLURM_PROCID")
    ranks = job("a", show, tmp_path)
    ranks = replace(ranks, command=replace(ranks.command, launch=Launch.PER_GPU), resources=Resources(num_gpus=2))
    submission = submit(plan_of(ranks), replace(cluster, sbatch={"cpus-per-task": "3"}))
    assert ended(submission) == {"a": S.SUCCEEDED}
    assert [(tmp_path / f"cores-{rank}").read_text() for rank in range(2)] == ["3 3\n"] * 2


def test_an_installation_runs_once_on_each_node_and_its_failure_ends_the_job(cluster, tmp_path):
    ranks = job("a", shell(f"ls {tmp_path}/installed-* > /dev/null && touch {tmp_path}/ran-$SLURM_PROCID"), tmp_path)
    install = f"echo once >> {tmp_path}/installed-$SLURM_NODEID"
    ranks = replace(
        ranks,
        command=replace(ranks.command, launch=Launch.PER_GPU, installation_command=install),
        resources=Resources(num_nodes=2, num_gpus=2),
    )
    submission = submit(plan_of(ranks), cluster)
    assert ended(submission) == {"a": S.SUCCEEDED}
    # What tells the ranks that it is done is this run's own: job ids begin anew with a new controller.
    assert len(list((submission.run_dir / "progress").glob("*.installed-*"))) == 2
    assert [(tmp_path / f"installed-{node}").read_text() for node in range(2)] == ["once\n"] * 2
    assert len(list(tmp_path.glob("ran-*"))) == 4
    broken = replace(ranks, command=replace(ranks.command, installation_command="false"))
    assert ended(submit(plan_of(broken), cluster)) == {"a": S.FAILED}


def test_logs_are_where_the_record_says(cluster, tmp_path):
    submission = submit(plan_of(job("a", shell("echo hello"), tmp_path)), cluster)
    ended(submission)
    run = Run(submission.run_dir)
    assert Path(run.submission.logs["a"]).read_text() == "hello\n"
    assert RunStore(Path(cluster.job_dir)).latest("exp").folder == submission.run_dir


def test_times_and_gpus_are_those_of_slurm_however_late_they_are_asked_for(cluster, tmp_path):
    ranks = replace(job("a", shell("sleep 1"), tmp_path), resources=Resources(num_nodes=2, num_gpus=2))
    submission = submit(plan_of(ranks), cluster)
    until(lambda: not queue(), "the job has ended")
    run = Run(submission.run_dir)
    first = statuses_of(run)["a"]
    assert statuses_of(run)["a"] == first, "what is on record is what Slurm has told"
    assert first.gpus == 4 and 1 <= first.elapsed(time.time()) < 60


def test_the_log_of_a_program_that_never_began_is_that_of_its_script(cluster, tmp_path, capsys):
    broken = replace(cluster, env=(EnvVar(name="SLURM_JOB_ID", value="999999"),))
    submission = submit(plan_of(job("a", shell("true"), tmp_path)), broken)
    assert ended(submission) == {"a": S.FAILED}
    assert main(["logs", str(submission.run_dir)]) == 0
    assert "srun: " in capsys.readouterr().out


def test_the_first_rank_that_ends_does_not_take_the_writer_of_the_verdict_along(cluster, tmp_path):
    """Rank 0 is still at it when rank 1 has ended with 75."""
    verdict = '{"outcome": "continue", "step": 1, "reason": "slow"}'
    late = f"[ $SLURM_PROCID = 1 ] || {{ sleep 1; echo '{verdict}' > $SKILLS_PIPE_VERDICT_FILE; }}; exit 75"
    plan = training_plan(tmp_path, "finish", jobs=1)
    ranks = replace(
        plan.jobs[0],
        command=replace(plan.jobs[0].command, argv=shell(late), launch=Launch.PER_GPU),
        resources=Resources(num_gpus=2),
    )
    submission = submit(replace(plan, jobs=(ranks, plan.jobs[1])), cluster)
    assert ended(submission) == {"sft-0": S.CONTINUED, "convert": S.CANCELLED}


@pytest.mark.parametrize(("text", "state"), [("0\n", S.SUCCEEDED), ("3\n", S.FAILED), (None, S.LOST)])
def test_what_slurm_has_forgotten_is_told_by_what_the_job_has_left(cluster, tmp_path, text, state):
    submission = submit(plan_of(job("a", shell("true"), tmp_path)), cluster)
    until(lambda: not queue(), "the job has ended")
    run = Run(submission.run_dir)
    assert run.exit_code("a") == 0
    unknown = replace(run.submission, job_ids={"a": "999999"})
    run.write_submission(unknown)
    if text is None:
        (run.folder / "exits" / "a").unlink()
    else:
        (run.folder / "exits" / "a").write_text(text)
    assert submission.states() == {"a": state}
