"""The script that queues the jobs of a run: ids that are known later, names, what is read back."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.submission import Variables, settle_script, submission_script
from tests.pipeline.programs import job, plan_of, shell, training_plan

RUN = Run(Path("/lustre/my jobs/experiments/exp/run-3"))
CLUSTER = ClusterConfig(name="big", executor=ExecutorKind.SLURM, job_dir="/lustre/my jobs")


def sbatch_calls(script: str) -> list[str]:
    """What follows ``queue NAME`` in each line that queues a job."""
    return re.findall(r"^  queue \S+ (sbatch .*) && \w+=\$id$", script, flags=re.MULTILINE)


def test_ids_that_are_known_later_are_variables():
    plan = training_plan(Path("/out"), "finish", jobs=2)
    hold = "sbatch --parsable --hold --export=ALL"
    kill = "--kill-on-invalid-dep=yes"
    assert sbatch_calls(submission_script(plan, CLUSTER, RUN)) == [
        f'{hold} "$run"/scripts/sft-0.sh',
        f'{hold} "--dependency=afternotok:$id_sft_0" {kill} "$run"/scripts/sft-1.sh',
        f'{hold} "--dependency=afterok:$id_sft_0?afterok:$id_sft_1" {kill} "$run"/scripts/convert.sh',
    ]


def test_ids_that_are_known_are_themselves_and_hold_for_every_segment():
    plan = training_plan(Path("/out"), "finish", jobs=2)
    script = submission_script(plan, CLUSTER, RUN, ("7", "8"))
    first, second, gate = sbatch_calls(script)
    assert '"--dependency=afterok:7,afterok:8"' in first
    assert '"--dependency=afterok:7,afterok:8,afternotok:$id_sft_0"' in second
    assert ":7" not in gate
    assert re.findall(r"^  comes_after (\d+)$", script, flags=re.MULTILINE) == ["7", "8"]


def test_every_edge_is_read_back():
    script = submission_script(training_plan(Path("/out"), "finish", jobs=3), CLUSTER, RUN)
    assert len(re.findall(r'^  waits_for "\$\w+" "\$\w+"$', script, flags=re.MULTILINE)) == 3 + 3


def test_where_slurm_may_not_cancel_the_flag_is_left_out():
    plan = training_plan(Path("/out"), "finish", jobs=2)
    assert "kill-on-invalid-dep" not in submission_script(plan, replace(CLUSTER, kill_on_invalid_dep=False), RUN)


def test_the_same_plan_gives_the_same_bytes():
    plan = training_plan(Path("/out"), "finish", jobs=3)
    assert submission_script(plan, CLUSTER, RUN) == submission_script(plan, CLUSTER, RUN)


@pytest.mark.parametrize(
    "make", [lambda: submission_script(one_job("a b'c"), CLUSTER, RUN), lambda: settle_script(RUN)]
)
def test_it_is_shell(make, tmp_path):
    (tmp_path / "script.sh").write_text(make())
    checked = subprocess.run(["bash", "-n", str(tmp_path / "script.sh")], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def one_job(name: str) -> Plan:
    return plan_of(job(name, shell("true"), Path("/logs of it")))


NAMES = st.lists(st.text("ab-._+@=1", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)


@given(NAMES)
def test_each_job_has_a_variable_of_its_own(names):
    """``a-b`` and ``a.b`` are two jobs, and shell takes neither as a name."""
    plan = plan_of(*(job(name, shell("true"), Path("/logs")) for name in names))
    variables = [Variables.of(plan)[name] for name in names]
    assert len(set(variables)) == len(names)
    assert all(re.fullmatch(r"id_\w+", variable, flags=re.ASCII) for variable in variables)


def answered(tmp_path: Path, **answers: str) -> subprocess.CompletedProcess[str]:
    """Submit ``a``, and ``b`` after it, to a Slurm whose programs are these lines of shell; ``$n`` counts sbatch."""
    folder = tmp_path / "bin"
    folder.mkdir()
    counter = tmp_path / "counter"
    usual = {
        "sbatch": f"echo >> {counter}; n=$(wc -l < {counter}); {answers.pop('sbatch', 'echo $n')}",
        "squeue": "echo '2|afterok:1(unfulfilled)'",
        "scontrol": f'echo "$*" >> {tmp_path}/calls',
        "scancel": f'echo "$*" >> {tmp_path}/cancelled',
        "srun": "exit 1",
    }
    for name, text in (usual | answers).items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    run = Run(tmp_path / "run-1")
    run.folder.mkdir()
    plan = plan_of(job("a", shell("true"), tmp_path), job("b", shell("true"), tmp_path, "a"))
    script = submission_script(plan, CLUSTER, run)
    environment = {"PATH": f"{folder}:/usr/bin:/bin"} | HABITS
    return subprocess.run(["bash", "-s"], input=script, env=environment, capture_output=True, text=True, check=False)


HABITS = {
    "SBATCH_TIMELIMIT": "1",
    "HF_TOKEN": "secret",
    "SBATCH_ACCOUNT": "mine",
    "SQUEUE_PARTITION": "other",
    "SLURM_CONF": "/etc/slurm.conf",
}


@pytest.mark.parametrize(
    "says",
    ["echo $n", 'echo "$n;far"', 'echo "Welcome; your balance is 12 hours"; echo; echo "$n"'],
    ids=["id", "federation", "wrapper"],
)
def test_the_script_takes_what_sbatch_says_for_the_id(tmp_path, says):
    answer = answered(tmp_path, sbatch=f'echo "$*" >> {tmp_path}/calls; {says}')
    assert (answer.returncode, answer.stdout) == (0, "a\t1\nb\t2\n")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "--dependency=afterok:1" in calls[1] and calls[2] == "release 1,2"
    assert (tmp_path / "run-1" / "jobs.tsv").read_text() == "a\t1\nb\t2\n"


def test_a_job_gets_next_to_nothing_of_the_environment_but_the_place_of_slurm(tmp_path):
    """Neither the habits of the user, which would win over the script, nor tokens."""
    answered(tmp_path, sbatch=f"env > {tmp_path}/seen; echo $n")
    seen = dict(line.split("=", 1) for line in (tmp_path / "seen").read_text().splitlines())
    assert set(seen) <= {"PATH", "SHELL", "SBATCH_ACCOUNT", "SLURM_CONF", "PWD", "SHLVL", "_"}
    assert seen["PATH"].startswith("/usr/local/sbin:") and seen["PATH"].endswith(f":{tmp_path}/bin")


def test_an_account_of_the_configuration_wins_over_that_of_the_environment():
    """sbatch would take the latter."""
    plan = plan_of(job("a", shell("true"), Path("/out")))
    assert "SBATCH_ACCOUNT" in submission_script(plan, CLUSTER, RUN)
    assert "SBATCH_ACCOUNT" not in submission_script(plan, replace(CLUSTER, account="ours"), RUN)
    assert "SBATCH_ACCOUNT" not in submission_script(plan, replace(CLUSTER, sbatch={"account": "ours"}), RUN)


def test_negative_control_a_word_is_no_id(tmp_path):
    answer = answered(tmp_path, sbatch='echo "$n"; echo "thank you"')
    assert answer.returncode == 3 and "sbatch gave no id for a" in answer.stderr


def test_negative_control_a_dependency_that_slurm_dropped_is_noticed(tmp_path):
    """A filter of the site may rewrite what sbatch was told."""
    answer = answered(tmp_path, squeue="echo '2|(null)'")
    assert answer.returncode == 3 and "Slurm took job 2 without its dependency on job 1" in answer.stderr
    assert (tmp_path / "cancelled").read_text() == "1 2\n" and not (tmp_path / "run-1" / "jobs.tsv").exists()


def test_a_submission_that_was_given_up_meanwhile_is_told_from_a_disk_that_is_full(tmp_path):
    settled = answered(tmp_path, squeue=f"[ -e {tmp_path}/run-1/jobs.tsv ] || : > {tmp_path}/run-1/jobs.tsv; "
                       "echo '2|afterok:1'")  # fmt: skip
    assert settled.returncode == 3 and "given up meanwhile" in settled.stderr


def test_no_link_can_be_made(tmp_path):
    answer = answered(tmp_path, ln="exit 1")
    assert answer.returncode == 3 and "jobs.tsv cannot be made" in answer.stderr
    assert (tmp_path / "cancelled").read_text() == "1 2\n"


# Settling


@pytest.mark.parametrize("held", [True, False])
def test_a_submission_is_settled_only_when_its_jobs_are_released(tmp_path, held):
    (tmp_path / "bin").mkdir()
    run = Run(tmp_path / "run-1")
    run.folder.mkdir()
    (run.folder / "jobs.tsv").write_text("a\t1\n")
    reason = "JobHeldUser" if held else "Priority"
    for name, text in {"squeue": f"echo '{reason} {run.at}/scripts/a.sh'", "scontrol": "exit 1"}.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
    argv = ["bash", "-c", settle_script(run)]
    answer = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == ((1, "") if held else (0, "submitted\na\t1\n"))
