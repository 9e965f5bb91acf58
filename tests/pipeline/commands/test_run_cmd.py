"""``ns run_cmd``: any command as a job, word for word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.commands.run_cmd import RunCmdOptions, plan
from skills_pipe.pipeline.console.command import Command
from skills_pipe.pipeline.plan import Mount, Plan

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")
words = st.text(alphabet=st.characters(exclude_categories=("Cs",)))


def planned(*line: str, cluster: ClusterConfig = HERE) -> Plan:
    return Command(options=RunCmdOptions, run=lambda options, extras: plan(options, extras, cluster)).call(line, {})


@given(st.lists(words))
def test_every_word_reaches_the_job(rest):
    argv = planned("--num_gpus=1", "python", *rest).jobs[0].command.argv
    assert argv == ("python", *rest)


def test_the_documented_command():
    line = ("python", "-m", "skills_pipe.training.prepare_data", "++input_files=a/output-rs*.jsonl b", "++x=1")
    assert planned("--expname=p", *line).jobs[0].command.argv == line


def test_a_text_is_left_to_a_shell():
    assert planned("--command=cd x && make 'all of it'").jobs[0].command.argv == (
        "bash",
        "-c",
        "cd x && make 'all of it'",
    )


@pytest.mark.parametrize("line", [(), ("--command=ls", "ls")])
def test_a_command_is_given_in_exactly_one_way(line):
    with pytest.raises(OptionError, match="either a command or --command"):
        planned(*line)


def test_shell_text_in_one_word_is_told_from_a_program():
    with pytest.raises(OptionError, match="--command="):
        planned("echo $HOME && true")


def test_it_always_runs_and_needs_no_gpu():
    made = planned("ls")
    assert made.stages[0].output is None
    assert made.jobs[0].resources.num_gpus == 0
    assert made.jobs[0].name == "script"


def test_logs_go_to_the_records_of_runs_where_jobs_can_see_them():
    cluster = ClusterConfig(
        name="c", executor=ExecutorKind.SLURM, container_runtime=ContainerRuntime.PYXIS, job_dir="/lustre/jobs"
    )
    mounted = ClusterConfig(
        name="c",
        executor=ExecutorKind.SLURM,
        container_runtime=ContainerRuntime.PYXIS,
        job_dir="/lustre/jobs",
        mounts=(Mount(source="/lustre", target="/w"),),
    )
    assert planned("ls").jobs[0].log_dir == "/jobs/experiments/script/logs"
    assert planned("ls", cluster=mounted).jobs[0].log_dir == "/w/jobs/experiments/script/logs"
    with pytest.raises(OptionError, match="--log_dir is missing"):
        planned("ls", cluster=cluster)
