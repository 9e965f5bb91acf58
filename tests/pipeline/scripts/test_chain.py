"""The lines of shell that a segment runs before and after its program, run by bash as they stand in its script."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.chain import chain_prologue, save_seconds
from skills_pipe.pipeline.scripts.setting import NOT_BEGUN, Setting
from skills_pipe.pipeline.scripts.times import time_lines
from tests.pipeline.programs import training_plan


@pytest.fixture
def setting(tmp_path) -> Setting:
    """The second segment of three."""
    plan = training_plan(tmp_path, "finish", jobs=3)
    run = Run(tmp_path / "run-1")
    run.folder.mkdir()
    run.make_folders()
    (run.folder / "jobs.tsv").write_text("sft-0\t10\nsft-1\t11\nsft-2\t12\nconvert\t13\n")
    cluster = ClusterConfig(name="test", executor=ExecutorKind.SLURM, job_dir=str(tmp_path))
    return Setting(job=plan.jobs[1], plan=plan, cluster=cluster, run=run)


def bash(setting: Setting, *lines: str, **answers: str) -> subprocess.CompletedProcess[str]:
    """Run the prologue and ``lines``; ``answers`` are the scripts of Slurm's programs."""
    folder = setting.run.folder / "bin"
    folder.mkdir(exist_ok=True)
    silent = dict.fromkeys(("squeue", "sacct", "scontrol", "scancel"), "exit 1")
    for name, text in (silent | answers).items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    names = [f"run={setting.run.at}", f"job={setting.job.name}"]
    script = "\n".join([*names, *time_lines(setting), *chain_prologue(setting), *lines])
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "11"}
    argv = ["bash", "-uo", "pipefail", "-c", script]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)


def has_run(setting: Setting, job: str, job_id: str) -> None:
    (setting.run.folder / "events" / f"{job}-{job_id}-0.jsonl").touch()


@pytest.mark.parametrize("answer", ["", "N/A", "13:45"])
def test_without_an_answer_from_slurm_there_is_no_deadline(setting, answer):
    """An empty one may be taken for midnight: a job with that deadline would save at once, time and again."""
    has_run(setting, "sft-0", "10")
    ended = bash(setting, 'echo "${SKILLS_PIPE_DEADLINE:-none}"', squeue=f'[[ "$*" == *%e* ]] && echo {answer}')
    assert ended.stdout == "none\n"


def test_the_deadline_is_what_squeue_says_in_seconds(setting):
    """Asked for them, it tells them, whatever its zone and the user's taste in times."""
    has_run(setting, "sft-0", "10")
    seconds = '[[ "$*" == *%e* ]] && [ "$SLURM_TIME_FORMAT" = %s ] && echo 1767225610'
    assert bash(setting, 'echo "$SKILLS_PIPE_DEADLINE"', squeue=seconds).stdout == "1767225610\n"


def test_a_predecessor_that_was_cancelled_stops_the_chain(setting):
    answer = bash(setting, "echo runs", squeue="echo CANCELLED", scancel=f'echo "$@" > {setting.run.folder}/cancelled')
    assert (answer.returncode, answer.stdout) == (NOT_BEGUN, "sft-0 was cancelled\n")
    assert (setting.run.folder / "chain" / "sft.stopped").read_text() == "sft-0 was cancelled\n"
    assert (setting.run.folder / "cancelled").read_text().split() == ["13", "12"]


def test_one_that_only_the_accounting_remembers_does_so_too(setting):
    answer = bash(setting, "echo runs", sacct='echo "CANCELLED by 1000"')
    assert (answer.returncode, answer.stdout) == (NOT_BEGUN, "sft-0 was cancelled\n")


def test_one_that_nobody_remembers_and_that_never_started_was_cancelled(setting):
    answer = bash(setting, "echo runs")
    assert (answer.returncode, answer.stdout) == (NOT_BEGUN, "sft-0 never started: it was cancelled\n")


@pytest.mark.parametrize("word", ["FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "COMPLETED"])
def test_negative_control_other_ends_do_not(setting, word):
    assert bash(setting, "echo runs", squeue=f'[[ "$*" == *%T* ]] && echo {word}').stdout == "runs\n"


def test_a_signal_that_comes_before_the_program_is_not_lost(setting):
    """Without a trap it would end the script; a program that starts now has to save at once."""
    has_run(setting, "sft-0", "10")
    signals = 'kill -USR1 "$(ps -o ppid= -p "$PPID" | tr -d " ")"'  # the caller is a subshell of the script
    assert bash(setting, 'ls "$run/save-now"', squeue=signals).stdout == "sft-1\n"


# Why a job was told to end

_TOLD = "JobId=11 JobName=x JobState={state} Reason={reason} Restarts={restarts} RunTime={ran} TimeLimit={limit} "
_USUAL = {"state": "COMPLETING", "reason": "None", "restarts": "0", "ran": "00:10:00", "limit": "1-00:00:00"}


def after_term(setting: Setting, told: str) -> bool:
    """Whether the chain is stopped once its running segment was told to end."""
    has_run(setting, "sft-0", "10")
    bash(setting, "on_term", scontrol=f"echo '{told}'")
    return (setting.run.folder / "chain" / "sft.stopped").exists()


@pytest.mark.parametrize("limit", ["1-00:00:00", "UNLIMITED", "00:10:01"])
def test_scancel_stops_the_chain(setting, limit):
    assert after_term(setting, _TOLD.format(**(_USUAL | {"limit": limit})))


@pytest.mark.parametrize(
    "change",
    [
        {"restarts": "1"},
        {"ran": "1-00:00:00"},
        {"ran": "00:10:08", "limit": "00:10:00"},
        {"reason": "NodeDown"},
        {"state": "RUNNING"},
        {"limit": "1-00:00:00 PreemptTime=2026-01-01T00:00:00"},
    ],
)
def test_negative_control_what_else_ends_a_job_does_not(setting, change):
    """It is requeued, its time is up, its node died or shuts down, it is preempted."""
    assert not after_term(setting, _TOLD.format(**(_USUAL | change)))


def test_negative_control_without_an_answer_it_goes_on(setting):
    assert not after_term(setting, "")


# Times


def test_each_start_notes_when_it_began_and_when_it_was_told_to_end(setting):
    has_run(setting, "sft-0", "10")
    bash(setting, "ran_until_now")
    (line, other) = (setting.run.folder / "events" / "sft-1-11-0.jsonl").read_text().splitlines()
    assert [json.loads(text)["kind"] for text in (line, other)] == ["ran from", "ran to"]
    assert {json.loads(text)["subject"] for text in (line, other)} == {"sft-1"}


@pytest.mark.parametrize(
    ("limit", "seconds"), [("1-00:00:00", 300), ("0-00:20:00", 300), ("0-00:10:00", 150), ("0-00:01:00", 15)]
)
def test_a_short_limit_is_not_spent_on_saving(limit, seconds):
    assert save_seconds(limit) == seconds
