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
    hold = "sbatch --parsable --hold --export=NIL"
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


def test_the_script_takes_what_sbatch_says_for_the_id(tmp_path):
    """On a federation sbatch says ``123;cluster``. All that Slurm is asked here is answered by three lines of shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    counter = tmp_path / "counter"
    answers = {
        "sbatch": f'echo >> {counter}; echo "$(wc -l < {counter});far"; echo "$*" >> {tmp_path}/calls',
        "squeue": "echo '2|afterok:1(unfulfilled)'",
        "scontrol": f'echo "$*" >> {tmp_path}/calls',
    }
    for name, text in answers.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    run = Run(tmp_path / "run-1")
    run.folder.mkdir()
    plan = plan_of(job("a", shell("true"), tmp_path), job("b", shell("true"), tmp_path, "a"))
    script = submission_script(plan, CLUSTER, run)
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    answer = subprocess.run(["bash", "-s"], input=script, env=environment, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stdout) == (0, "a\t1\nb\t2\n")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert "--dependency=afterok:1" in calls[1] and calls[2] == "release 1,2"
    assert (run.folder / "jobs.tsv").read_text() == "a\t1\nb\t2\n"


def test_negative_control_a_dependency_that_slurm_dropped_is_noticed(tmp_path):
    """A filter of the site may rewrite what sbatch was told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    answers = {
        "sbatch": f"echo >> {tmp_path}/counter; wc -l < {tmp_path}/counter",
        "squeue": "echo '2|(null)'",
        "scancel": f'echo "$*" >> {tmp_path}/cancelled',
    }
    for name, text in answers.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    run = Run(tmp_path / "run-1")
    run.folder.mkdir()
    plan = plan_of(job("a", shell("true"), tmp_path), job("b", shell("true"), tmp_path, "a"))
    script = submission_script(plan, CLUSTER, run)
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    answer = subprocess.run(["bash", "-s"], input=script, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 3 and "Slurm took job 2 without its dependency on job 1" in answer.stderr
    assert (tmp_path / "cancelled").read_text() == "1 2\n" and not (run.folder / "jobs.tsv").exists()
