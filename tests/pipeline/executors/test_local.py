"""Jobs as processes here: order, side by side, failures, chains, and nothing left behind."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skills_pipe.errors import JobFailed, PlanError
from skills_pipe.pipeline.decisions.preview import preview
from skills_pipe.pipeline.executors.local import LocalExecutor
from skills_pipe.pipeline.executors.machine import Machine
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.process import ProcessId, kill, marked
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, make, plan_of, shell, training_plan, until

S = JobState


def execute(plan: Plan, folder: Path, *, machine: Machine | None = None) -> Run:
    """Run a plan on a machine of our choice, and return its record whatever came of it."""
    cluster = local(folder)
    seen = preview(plan, cluster)
    run = RunStore(Path(cluster.job_dir)).create(plan.expname)
    run.write_plan(plan)
    for name, text in seen.scripts.items():
        run.write_script(name, text)
    executor = LocalExecutor(machine=machine or Machine(cores=2), grace_seconds=20)
    executor.submit(run, seen.to_run, {stage.name: "run" for stage in plan.stages})
    return run


def states(folder: Path) -> dict[str, JobState]:
    run = RunStore(folder / "jobs").latest("exp")
    return {name: status.state for name, status in statuses_of(run).items()}


def history(run: Run) -> list[tuple[str, str]]:
    return [(event.kind, event.subject) for event in run.events()]


def test_jobs_start_in_the_order_of_their_edges(tmp_path):
    run = execute(
        plan_of(
            job("a", shell("true"), tmp_path),
            job("b", shell("true"), tmp_path, "a"),
            job("c", shell("true"), tmp_path, "b"),
        ),
        tmp_path,
    )
    assert history(run) == [(kind, name) for name in ("a", "b", "c") for kind in ("started", "ended")]


def test_independent_jobs_run_side_by_side(tmp_path):
    """Each waits for a file of the other: one after the other they would never end."""
    meet = "touch {0}/{1}; until [ -e {0}/{2} ]; do sleep 0.02; done"
    execute(
        plan_of(
            job("a", shell(meet.format(tmp_path, "a", "b")), tmp_path),
            job("b", shell(meet.format(tmp_path, "b", "a")), tmp_path),
        ),
        tmp_path,
    )
    assert states(tmp_path) == {"a": S.SUCCEEDED, "b": S.SUCCEEDED}


def test_no_more_jobs_run_at_once_than_there_are_cores(tmp_path):
    count = f"echo + >> {tmp_path}/count; sleep 0.05; echo - >> {tmp_path}/count"
    execute(
        plan_of(*(job(f"j{index}", shell(count), tmp_path) for index in range(4))), tmp_path, machine=Machine(cores=1)
    )
    assert (tmp_path / "count").read_text().split() == ["+", "-"] * 4


def test_jobs_that_run_at_once_have_different_gpus(tmp_path):
    """Two of two GPUs each fit on four; they wait for each other, so they do run at once."""
    meet = f"until [ -s {tmp_path}/a -a -s {tmp_path}/b ]; do :; done"
    show = f"echo $CUDA_VISIBLE_DEVICES > {tmp_path}/$NAME_OF_JOB; {meet}"
    jobs = [job(name, shell(show), tmp_path, gpus=2) for name in ("a", "b", "c")]
    run = execute(plan_of(*jobs), tmp_path, machine=Machine(cores=8, gpus=("0", "1", "2", "3")))
    assert {(tmp_path / name).read_text().strip() for name in ("a", "b")} == {"0,1", "2,3"}
    assert (tmp_path / "c").read_text().strip() in ("0,1", "2,3"), "the third took the GPUs of one that had ended"
    assert {status.gpus for status in statuses_of(run).values()} == {2}


def test_more_gpus_than_the_machine_has_are_refused_before_anything_starts(tmp_path):
    greedy = job("a", shell(f"touch {tmp_path}/ran"), tmp_path, gpus=3)
    with pytest.raises(PlanError, match="asks for 3 GPUs, this machine has 2"):
        execute(plan_of(greedy), tmp_path, machine=Machine(cores=8, gpus=("0", "1")))
    assert not (tmp_path / "ran").exists()


def test_a_failed_job_stops_what_waits_for_it_and_nothing_else(tmp_path):
    with pytest.raises(JobFailed) as caught:
        execute(
            plan_of(
                job("bad", shell("echo the last words; exit 3"), tmp_path),
                job("waits", shell("true"), tmp_path, "bad"),
                job("waits-too", shell("true"), tmp_path, "waits"),
                job("other", shell("true"), tmp_path),
            ),
            tmp_path,
        )
    assert states(tmp_path) == {"bad": S.FAILED, "waits": S.CANCELLED, "waits-too": S.CANCELLED, "other": S.SUCCEEDED}
    message = str(caught.value)
    assert "job bad failed (exit code 3)" in message
    assert str(tmp_path / "logs" / "main_bad_local-1.log") in message
    assert message.endswith("  | the last words")
    assert "waits" not in message


def test_a_reason_that_the_log_ends_with_is_told_once(tmp_path):
    said = "echo before; echo error: exit code 3; exit 3"
    with pytest.raises(JobFailed) as caught:
        execute(plan_of(job("bad", shell(said), tmp_path)), tmp_path)
    assert str(caught.value).count("exit code 3") == 1
    assert str(caught.value).endswith("  | before")


def test_a_job_killed_for_memory_is_told_as_such(tmp_path):
    with pytest.raises(JobFailed, match=r"killed by SIGKILL \(out of memory\?\)"):
        execute(plan_of(job("a", shell("kill -9 $$"), tmp_path)), tmp_path)


def test_a_job_that_ends_well_without_sealing_its_output_has_failed(tmp_path):
    liar = plan_of(job("a", shell(f"touch {tmp_path}/out"), tmp_path), a=tmp_path / "out")
    with pytest.raises(JobFailed, match="has no manifest: it is not finished"):
        submit(liar, local(tmp_path))


def test_negative_control_a_job_that_seals_its_output_has_not(tmp_path):
    assert submit(plan_of(job("a", make(tmp_path / "out"), tmp_path), a=tmp_path / "out"), local(tmp_path)).succeeded


def test_processes_that_a_job_leaves_behind_do_not_outlive_it(tmp_path):
    """Even one in a session of its own, as the workers of torchrun are."""
    run = execute(plan_of(job("a", shell("setsid sleep 1000 & echo $! > " + f"{tmp_path}/pid"), tmp_path)), tmp_path)
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not ProcessId.of(pid).started, "the process that was left behind is gone")
    assert marked(f"SKILLS_PIPE_JOB={run.folder}#a") == []


# Chains


def test_a_chain_goes_on_until_the_work_is_done_and_skips_the_rest(tmp_path):
    submission = submit(training_plan(tmp_path, "step", jobs=3, total=2), local(tmp_path))
    assert submission.states() == {
        "sft-0": S.CONTINUED,
        "sft-1": S.SUCCEEDED,
        "sft-2": S.NOT_NEEDED,
        "convert": S.SUCCEEDED,
    }
    assert submission.succeeded


def test_a_chain_that_is_done_at_once_runs_one_job(tmp_path):
    submission = submit(training_plan(tmp_path, "finish", jobs=3), local(tmp_path))
    assert list(submission.states().values()) == [S.SUCCEEDED, S.NOT_NEEDED, S.NOT_NEEDED, S.SUCCEEDED]


def test_the_next_job_is_the_retry_of_one_that_crashed(tmp_path):
    submission = submit(training_plan(tmp_path, "step-and-crash", "finish", jobs=2), local(tmp_path))
    assert list(submission.states().values()) == [S.FAILED, S.SUCCEEDED, S.SUCCEEDED]


def test_a_program_that_gives_up_ends_its_chain(tmp_path):
    with pytest.raises(JobFailed, match=r"job sft-0 failed \(the data is missing\)"):
        submit(training_plan(tmp_path, "refuse", jobs=3), local(tmp_path))
    assert list(states(tmp_path).values()) == [S.FAILED, S.CANCELLED, S.CANCELLED, S.CANCELLED]


def test_two_crashes_in_a_row_without_a_new_step_end_the_chain(tmp_path):
    with pytest.raises(JobFailed, match="SIGABRT"):
        submit(training_plan(tmp_path, "crash", jobs=4), local(tmp_path))
    assert list(states(tmp_path).values()) == [S.FAILED, S.FAILED, S.CANCELLED, S.CANCELLED, S.CANCELLED]


def test_negative_control_crashes_that_each_made_a_step_do_not(tmp_path):
    submission = submit(training_plan(tmp_path, *["step-and-crash"] * 3, "finish", jobs=4, total=9), local(tmp_path))
    assert list(submission.states().values()) == [S.FAILED] * 3 + [S.SUCCEEDED] * 2


def test_a_chain_that_is_used_up_says_how_to_go_on_and_then_goes_on(tmp_path):
    plan = training_plan(tmp_path, "step", jobs=1, total=2)
    with pytest.raises(JobFailed, match=r"'sft' is not finished \(the time is up.*run the same command again"):
        submit(plan, local(tmp_path))
    assert states(tmp_path) == {"sft-0": S.CONTINUED, "convert": S.CANCELLED}
    again = submit(plan, local(tmp_path))
    assert again.actions == {"sft": "continue", "convert": "run"}
    assert again.succeeded


# Stopping

_RUNNER = """
import sys
from pathlib import Path
from skills_pipe.errors import JobFailed
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, plan_of, shell
folder = Path(sys.argv[1])
wait = f"trap 'echo asked; exit 0' TERM; setsid sleep 1000 & echo $! > {folder}/pid; touch {folder}/runs; "
wait += sys.argv[2]
try:
    submit(plan_of(job("a", shell(wait), folder), job("b", shell("true"), folder, "a")), local(folder))
except JobFailed as error:
    print(error)
    sys.exit(error.exit_code)
"""
_POLITE = "while :; do sleep 0.02; done"
_DEAF = "trap '' TERM; while :; do sleep 0.02; done"


def _start(folder: Path, behaviour: str) -> subprocess.Popen:
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", _RUNNER, str(folder), behaviour], cwd=root, stdout=subprocess.PIPE
    )
    until((folder / "runs").exists, "the job runs")
    return process


def _left_behind(folder: Path) -> ProcessId:
    return ProcessId.of(int((folder / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_everything_that_was_started(tmp_path, number):
    process = _start(tmp_path, _POLITE)
    process.send_signal(number)
    out, _ = process.communicate()
    assert process.returncode == 128 + number
    assert b"stopped by" in out
    assert states(tmp_path) == {"a": S.CANCELLED, "b": S.CANCELLED}
    assert not _left_behind(tmp_path).started
    assert "asked" in (tmp_path / "logs" / "main_a_local-1.log").read_text()


def test_a_second_signal_does_not_wait_for_a_deaf_job(tmp_path):
    process = _start(tmp_path, _DEAF)
    process.send_signal(signal.SIGINT)
    until(lambda: S.CANCELLED in states(tmp_path).values(), "the first signal has arrived")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert states(tmp_path) == {"a": S.CANCELLED, "b": S.CANCELLED}
    assert not _left_behind(tmp_path).started


def test_cancelling_from_another_process_stops_it_too(tmp_path):
    process = _start(tmp_path, _POLITE)
    run = RunStore(tmp_path / "jobs").latest("exp")
    assert LocalExecutor(machine=Machine(cores=1)).cancel(run) == ["a", "b"]
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert not _left_behind(tmp_path).started
    assert LocalExecutor(machine=Machine(cores=1)).cancel(run) == []


def test_a_killed_ns_leaves_a_state_that_is_understood(tmp_path):
    process = _start(tmp_path, _POLITE)
    process.kill()
    process.communicate()
    run = RunStore(tmp_path / "jobs").latest("exp")
    assert states(tmp_path) == {"a": S.RUNNING, "b": S.LOST}, "its job goes on, the one that waited never will"
    assert LocalExecutor(machine=Machine(cores=1), grace_seconds=20).cancel(run) == ["a"]
    assert states(tmp_path) == {"a": S.CANCELLED, "b": S.LOST}
    assert not _left_behind(tmp_path).started


def test_a_killed_ns_and_its_dead_job_are_lost(tmp_path):
    process = _start(tmp_path, _POLITE)
    run = RunStore(tmp_path / "jobs").latest("exp")
    job_process = statuses_of(run)["a"].process
    process.kill()
    process.communicate()
    kill([job_process], signal.SIGKILL)
    until(lambda: not job_process.is_alive, "the job is gone")
    assert states(tmp_path) == {"a": S.RUNNING, "b": S.LOST}, "a process that it has started still writes"
    left_behind = _left_behind(tmp_path)
    kill([left_behind], signal.SIGKILL)
    until(lambda: not left_behind.is_alive, "that is gone too")
    assert states(tmp_path) == {"a": S.LOST, "b": S.LOST}


def test_a_job_waits_until_it_is_on_record(tmp_path):
    """Nothing of a job runs before the word: else a killed runner would leave one that nobody knows of."""
    from skills_pipe.pipeline.executors.local import _WAIT_FOR_THE_WORD

    script = tmp_path / "script.sh"
    script.write_text(f"touch {tmp_path}/ran\n")
    silent = subprocess.run(
        ["bash", "-c", _WAIT_FOR_THE_WORD, "job", str(script)], stdin=subprocess.DEVNULL, check=False
    )
    assert silent.returncode == 125 and not (tmp_path / "ran").exists()
    told = subprocess.run(["bash", "-c", _WAIT_FOR_THE_WORD, "job", str(script)], input=b"go\n", check=False)
    assert told.returncode == 0 and (tmp_path / "ran").exists()


def test_the_log_of_a_job_is_where_the_record_says(tmp_path):
    run = execute(plan_of(job("a", shell("echo out; echo err >&2"), tmp_path)), tmp_path)
    log = Path(statuses_of(run)["a"].log)
    assert sorted(log.read_text().split()) == ["err", "out"]
    assert re.fullmatch(r"main_a_local-\d+\.log", log.name)
