"""``ns run_cmd``: any command as a job, word for word."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.commands.run_cmd import RunCmdOptions, plan
from skills_pipe.pipeline.console.command import Command
from skills_pipe.pipeline.plan import Mount, Plan

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")
SLURM = ClusterConfig(name="slurm", executor=ExecutorKind.SLURM, job_dir="/jobs", partition="gpu", cpu_partition="cpu")
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


# Several processes, several commands, a server


def test_processes_on_every_node():
    job = planned("--num_nodes=2", "--num_tasks=4", "ls", cluster=SLURM).jobs[0]
    assert (job.members[0].nodes, job.members[0].tasks_per_node, job.resources.num_nodes) == (2, 4, 2)
    alone = planned("ls", cluster=SLURM).jobs[0]
    assert (alone.members[0].nodes, alone.members[0].tasks_per_node, alone.beside) == (1, 1, ())


def test_several_commands_run_side_by_side_each_in_its_container():
    run = Command(options=RunCmdOptions, run=lambda options, extras: plan(options, extras, SLURM))
    job = run.call((), {"command": ["a", "b"], "container": ["x", "y"], "num_gpus": [2, 1]}).jobs[0]
    assert [(m.name, m.command.argv[2], m.command.container, m.num_gpus) for m in job.members] == [
        ("main", "a", "x", 2),
        ("main_1", "b", "y", 1),
    ]
    assert job.resources.num_gpus == 3 and not any(member.service for member in job.members)
    assert job == planned("--command=a", "--command=b", "--container=x", "--container=y", "--num_gpus=2",
                          "--num_gpus=1", cluster=SLURM).jobs[0]  # fmt: skip


def test_one_container_and_number_of_gpus_holds_for_all_commands():
    job = planned("--command=a", "--command=b", "--container=x", "--num_gpus=2", cluster=SLURM).jobs[0]
    assert [(member.command.container, member.num_gpus) for member in job.members] == [("x", 2)] * 2
    assert job.resources.num_gpus == 4


def test_a_server_starts_before_the_command():
    line = ("--model=org/m", "--server_type=vllm", "--server_gpus=4", "--with_sandbox", "--num_gpus=1", "ls")
    made = planned(*line, cluster=SLURM)
    job = made.jobs[0]
    assert [(member.name, member.num_gpus) for member in job.members] == [("main", 1), ("server", 4), ("sandbox", 0)]
    assert job.resources.num_gpus == 5
    assert made.stages[0].inputs == ("org/m",)


def test_a_server_elsewhere_is_only_an_address():
    job = planned("--server_address=http://h:1", "--model=m", "ls", cluster=SLURM).jobs[0]
    assert job.beside == () and dict(job.command.env)["SKILLS_PIPE_SERVER_ADDRESS"] == "http://h:1"


def test_dependent_jobs_are_retries_and_later_runs_wait_for_any_of_them():
    made = planned("--dependent_jobs=2", "--expname=x", "ls", cluster=SLURM)
    assert [(job.name, [(edge.upstream, edge.kind.value) for edge in job.edges]) for job in made.jobs] == [
        ("x-0", []),
        ("x-1", [("x-0", "unfinished")]),
        ("x-2", [("x-0", "unfinished"), ("x-1", "unfinished")]),
        ("x-one-of-them", [("x-0", "any_succeeded"), ("x-1", "any_succeeded"), ("x-2", "any_succeeded")]),
    ]
    assert made.jobs[-1].resources.num_gpus == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (("--model=m", "ls"), "--server_type is missing"),
        (("--server_type=vllm", "ls"), "--model is missing"),
        (("--num_tasks=0", "ls"), "--num_tasks is 0"),
        (("--num_gpus=-1", "ls"), "--num_gpus is -1"),
        (("--container=a", "--container=b", "ls"), "--container has 2 values for 1 commands"),
        (("--server_address=http://h:1", "--server_gpus=1", "ls"), "either runs elsewhere or in the job"),
    ],
)
def test_what_does_not_go_together_is_refused(line, told):
    with pytest.raises(OptionError, match=told):
        planned(*line, cluster=SLURM)


def test_a_plan_of_several_commands_is_read_back_as_it_was():
    line = ("--model=org/m", "--server_type=vllm", "--server_gpus=4", "--with_sandbox", "--num_tasks=2", "ls")
    made = planned(*line, cluster=SLURM)
    assert Plan.from_json(json.loads(made.to_text())) == made
