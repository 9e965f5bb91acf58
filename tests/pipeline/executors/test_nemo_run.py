"""Plans as tasks of nemo-run: what it is told, what is refused, and that nothing of it is needed for that."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.errors import ClusterConfigError, PlanError
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind, RankLauncher, SshTunnel
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.decisions.preview import preview
from skills_pipe.pipeline.executors.nemo_run import bridge
from skills_pipe.pipeline.executors.nemo_run.environment import for_sbatch
from skills_pipe.pipeline.executors.nemo_run.refusals import refusals
from skills_pipe.pipeline.executors.nemo_run.target import TARGETS, Settings, stays_until_the_end
from skills_pipe.pipeline.executors.nemo_run.tasks import tasks
from skills_pipe.pipeline.plan import Edge, EdgeKind, Launch, Member, Mount, Plan, Resources, chain
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.scripts.environment import prologue
from skills_pipe.pipeline.scripts.place import render
from skills_pipe.pipeline.scripts.setting import Setting
from skills_pipe.pipeline.scripts.submission import submission_script
from skills_pipe.pipeline.submit import submit
from tests.pipeline.golden_file import check_golden
from tests.pipeline.programs import job, plan_of, shell, training_plan

RUN = Run(Path("/jobs/experiments/exp/run-1"))
CODE = "/jobs/code"
HOME = Path("/home/me")


def cluster(executor: str = "slurm", *, images: bool = False, **options: object) -> ClusterConfig:
    return ClusterConfig(
        name="test",
        executor=ExecutorKind.NEMO_RUN,
        job_dir="/jobs",
        containers={"nemo-skills": "org/image:1"} if images else {},
        container_runtime=ContainerRuntime.PYXIS if images else ContainerRuntime.NONE,
        nemo_run={"executor": executor, **options},
    )


def training() -> Plan:
    """One training job of two nodes and a conversion, in containers."""
    plan = training_plan(Path("/work"), "finish", jobs=1)
    sft, convert = plan.jobs
    resources = Resources(num_nodes=2, num_gpus=8, partition="gpu", time_limit="0-04:00:00", exclusive=True)
    sft = replace(
        sft,
        command=replace(sft.command, argv=("python", "-m", "train", "a b"), launch=Launch.PER_GPU),
        resources=resources,
    )
    convert = replace(convert, command=replace(convert.command, argv=("python", "-m", "convert")))
    return replace(plan, jobs=(sft, convert), mounts=(Mount(source="/lustre/work", target="/work"),))


def told(plan: Plan, where: ClusterConfig) -> list[str]:
    return [str(finding) for finding in refusals(plan, where, RUN)]


# What nemo-run is told


def test_its_slurm_executor_gets_all_that_our_own_scripts_would_say():
    where = replace(
        cluster(images=True, mem="64G"),
        account="research",
        job_name_prefix="me-",
        mail_type="FAIL",
        mail_user="me@example.org",
        sbatch={"reservation": "spring", "no-kill": ""},
    )
    plan = training()
    value = [task.to_json() for task in tasks(plan, where, RUN, CODE)]
    for job_of_task, task in zip(plan.jobs, value, strict=True):
        shared = prologue(Setting(job=job_of_task, plan=plan, cluster=where, run=RUN))
        lines = task["options"]["setup_lines"].splitlines()
        assert lines[1 : 1 + len(shared)] == shared
        task["options"]["setup_lines"] = [lines[0], "(the prologue of all batch scripts)", *lines[1 + len(shared) :]]
    check_golden("nemo_run/slurm.json", json.dumps(value, indent=2, sort_keys=True) + "\n")


def test_other_executors_get_image_mounts_and_gpus_under_their_own_names():
    one = job("a", shell("true"), HOME, gpus=2)
    plan = replace(plan_of(one), mounts=(Mount(source="/d", target="/data", read_only=True),))
    (docker,) = tasks(plan, cluster("docker", images=True, shm_size="30g"), RUN, CODE)
    assert docker.options == {
        "container_image": "org/image:1",
        "volumes": ["/d:/data:ro", f"{RUN.at}:{RUN.at}", f"{CODE}:{CODE}:ro"],
        "num_gpus": 2,
        "shm_size": "30g",
    }
    (kubeflow,) = tasks(plan, cluster("kubeflow", images=True), RUN, CODE)
    assert kubeflow.options == {"image": "org/image:1", "gpus_per_node": 2}
    (local,) = tasks(plan_of(job("a", shell("true"), HOME, gpus=2)), cluster("local"), RUN, CODE)
    assert local.options == {}


def test_edges_are_told_only_to_an_executor_that_honours_them():
    plan = plan_of(job("a", shell("true"), HOME), job("b", shell("true"), HOME, "a"))
    assert [task.after for task in tasks(plan, cluster("slurm"), RUN, CODE)] == [(), ("a",)]
    assert [task.after for task in tasks(plan, cluster("local"), RUN, CODE)] == [(), ()]


def test_the_keywords_for_slurm_hold_no_variable_of_the_job():
    """nemo-run neither quotes nor hides variables: they stand in the script that it starts."""
    one = job("a", shell("true"), HOME)
    plan = plan_of(replace(one, command=replace(one.command, env=(("PLANTED", "value of it"),))))
    (task,) = tasks(plan, cluster(), RUN, CODE)
    assert "PLANTED" not in json.dumps(task.to_json())


@pytest.mark.parametrize(("executor", "name"), [("slurm", "slurm"), ("local", "local")])
def test_the_script_of_a_task(executor, name):
    where = replace(cluster(executor), container_runtime=ContainerRuntime.NONE)

    one = job("a", ("python", "-m", "train", "a b"), HOME, gpus=2)
    one = replace(one, command=replace(one.command, launch=Launch.PER_GPU, installation_command="pip install x"))
    text = render(one, plan_of(one), where, RUN, CODE).replace(str(Path(sys.executable).parent), "/venv/bin")
    check_golden(f"nemo_run/{name}.sh", text)


def test_the_section_is_read_from_a_file(tmp_path):
    path = tmp_path / "docker.yaml"
    path.write_text(
        "executor: nemo_run\njob_dir: /jobs\ncontainers: {nemo-rl: org/image}\n"
        "nemo_run: {executor: docker, shm_size: 1g}\n"
    )
    read = load_cluster(str(path))
    assert read.executor is ExecutorKind.NEMO_RUN and read.container_runtime is not ContainerRuntime.NONE
    assert Settings.of(read).options == {"shm_size": "1g"}
    assert stays_until_the_end(read) and not stays_until_the_end(cluster("slurm"))


@pytest.mark.parametrize("word", ["docker", "DockerExecutor", "nemo_run.DockerExecutor"])
def test_an_executor_goes_by_its_short_name_or_that_of_its_class(word):
    assert Settings.of(cluster(word)).target is TARGETS["docker"]


# What its Slurm executor calls sbatch with


@pytest.fixture
def slurm_programs(tmp_path, monkeypatch):
    """Slurm's programs in a folder of their own, and a shell with a token in it."""
    programs = tmp_path / "slurm"
    programs.mkdir()
    for name in ("sbatch", "srun"):
        (programs / name).touch(mode=0o755)
    for name in os.environ:
        monkeypatch.delenv(name)
    shell_variables = {
        "HOME": "/home/me",
        "SHELL": "/bin/bash",
        "HF_TOKEN": "secret",
        "SBATCH_ACCOUNT": "mine",
        "LOGNAME": "",
    }
    for name, value in {"PATH": str(programs), **shell_variables}.items():
        monkeypatch.setenv(name, value)
    return programs


def test_sbatch_gets_a_path_and_who_the_user_is(slurm_programs):
    found = for_sbatch(replace(cluster(), account="research"))
    assert found == {"PATH": found["PATH"], "HOME": "/home/me", "SHELL": "/bin/bash"}
    assert shutil.which("sbatch", path=found["PATH"]) == str(slurm_programs / "sbatch")


def test_an_account_of_the_user_counts_where_the_configuration_has_none(slurm_programs):
    assert for_sbatch(cluster())["SBATCH_ACCOUNT"] == "mine"
    assert "SBATCH_ACCOUNT" not in for_sbatch(replace(cluster(), sbatch={"account": "research"}))


def test_a_wrapper_of_sbatch_is_the_one_that_is_called(slurm_programs, tmp_path, monkeypatch):
    wrapper = tmp_path / "site" / "sbatch"
    wrapper.parent.mkdir()
    wrapper.touch(mode=0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{slurm_programs}")
    path = for_sbatch(cluster())["PATH"]
    assert shutil.which("sbatch", path=path) == str(wrapper)
    assert path.endswith(f":{slurm_programs}"), "Slurm's other programs stay within reach"


def test_it_is_what_our_own_script_leaves(slurm_programs, tmp_path):
    """The two are written in two languages."""
    plan = plan_of(job("a", shell("true"), tmp_path))
    lines = submission_script(plan, cluster(), Run(tmp_path / "run")).splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("sbatch=$(type"))
    end = next(number for number in range(begin, len(lines)) if lines[number] == "done")
    text = "\n".join([*lines[begin : end + 1], 'PATH=/usr/bin:/bin; env -i "${few[@]}" env -0'])
    told = subprocess.run(
        ["/bin/bash", "-c", f'dirname() {{ /usr/bin/dirname "$@"; }}; {text}'],
        capture_output=True,
        text=True,
        check=True,
    )
    seen = dict(line.split("=", 1) for line in told.stdout.split("\0") if line)
    expected = for_sbatch(replace(cluster(), account="research"))
    # Where Slurm's programs are more than once, the name alone must lead to the right one.
    assert expected["PATH"].endswith(seen["PATH"])
    assert seen | {"PATH": ""} == expected | {"PATH": ""}


# What is refused


def test_a_plan_that_nemo_run_can_run_is_not_refused():
    """The control of all refusals below."""
    assert told(training(), cluster(images=True)) == []
    assert told(plan_of(job("a", shell("true"), HOME)), cluster("local")) == []


def test_a_chain_of_several_jobs_on_slurm():
    plan = training_plan(HOME, "finish", jobs=3)
    assert told(plan, cluster()) == [
        "error: jobs 'sft-0', 'sft-1', 'sft-2' are a chain, and nemo-run has no dependencies that could make one: "
        "use --num_training_jobs=1, or use executor: slurm"
    ]
    assert told(plan, cluster("local")) == [], "here this machine starts each segment itself"


def test_an_any_of_edge_on_slurm():
    a, b = (job(name, shell("true"), HOME) for name in "ab")
    gate = replace(
        job("c", shell("true"), HOME),
        edges=tuple(Edge(upstream=name, kind=EdgeKind.ANY_SUCCEEDED) for name in "ab"),
    )
    (finding,) = told(plan_of(a, b, gate), cluster())
    assert "job 'c' does not simply start after a, b ended well" in finding
    one = replace(gate, edges=gate.edges[:1])
    assert told(plan_of(a, b, one), cluster()) == [], "any of one is that one"


def refused_job(**changes: object) -> Plan:
    return plan_of(replace(job("a", shell("true"), HOME), **changes))


@pytest.mark.parametrize(
    ("plan", "where", "words"),
    [
        (
            refused_job(beside=(Member(name="server", command=job("s", shell("serve"), HOME).command),)),
            cluster(),
            "job 'a' runs server beside its main command",
        ),
        (
            refused_job(resources=Resources(num_nodes=2)),
            cluster("docker", images=True),
            "job 'a' asks for 2 nodes, and gets one by nemo-run's docker executor (--num_nodes): set it to 1",
        ),
        (
            refused_job(command=replace(job("a", shell("true"), HOME).command, secrets=())),
            cluster(),
            "job 'a' must not see all secrets",
        ),
        (
            refused_job(command=replace(job("a", shell("cat /nemo_run/x"), HOME).command)),
            cluster(images=True),
            "job 'a' names /nemo_run",
        ),
        (
            plan_of(*chain(job("a", shell("true"), HOME), count=3, requeue=True)),
            cluster("local"),
            "job 'a-0' has to queue itself again",
        ),
        (
            refused_job(log_dir="/data/nemo_run/logs"),
            cluster(),
            "and /data/nemo_run/logs has it (--log_dir): rename that folder",
        ),
        (refused_job(), cluster("docker"), "nemo-run's docker executor needs an image"),
        (refused_job(), cluster("local", images=True), "nemo-run's local executor has no containers"),
        (
            refused_job(),
            replace(cluster(images=True), container_runtime=ContainerRuntime.APPTAINER),
            "nemo-run knows no apptainer",
        ),
        (
            refused_job(),
            replace(cluster(), ssh_tunnel=SshTunnel(host="login", job_dir="/jobs")),
            "nemo-run's own ssh is not used",
        ),
    ],
)
def test_what_nemo_run_cannot_honour(plan, where, words):
    (finding,) = told(plan, where)
    assert words in finding


def test_ranks_by_torchrun_on_slurm():
    where = replace(cluster(images=True), rank_launcher=RankLauncher.TORCHRUN)
    assert told(training(), where) == [
        "error: nemo-run's slurm executor starts one task for each rank (rank_launcher: torchrun): remove it, or use"
        " executor: slurm"
    ]
    assert told(plan_of(job("a", shell("true"), HOME)), where) == [], "nothing here has ranks"


def test_what_has_no_effect_is_said():
    plan = refused_job(resources=Resources(partition="gpu", time_limit="0-01:00:00"))
    assert told(plan, cluster("docker", images=True)) == [
        "warning: partition, time_limit of jobs: without effect on nemo-run's docker executor"
    ]
    assert told(plan, cluster()) == []


def test_a_folder_that_only_looks_like_nemo_runs_own_is_no_reason():
    plan = refused_job(command=job("a", shell("cat /data/nemo_run/x /nemo_runs"), HOME).command)
    assert told(plan, cluster(images=True)) == []


def test_a_folder_that_nemo_run_would_not_quote_or_would_rewrite():
    plan = plan_of(job("a", shell("true"), HOME))
    (spaces,) = refusals(plan, cluster(), Run(Path("/my jobs/experiments/exp/run-1")))
    assert "would not quote '/my jobs/" in str(spaces)
    (rewritten,) = refusals(plan, cluster(), Run(Path("/data/nemo_run/experiments/exp/run-1")))
    assert "replaces /nemo_run wherever it stands" in str(rewritten)
    assert refusals(plan, cluster(images=True), Run(Path("/data/nemo_run/experiments/exp/run-1"))) == []


def test_jobs_of_other_runs_are_waited_for_on_slurm_only():
    plan = plan_of(job("a", shell("true"), HOME), job("b", shell("true"), HOME, "a"))
    (finding,) = refusals(plan, cluster("local"), RUN, after=("17",))
    assert "nemo-run's local executor cannot wait for jobs of Slurm (17) (--run_after)" in str(finding)
    assert refusals(plan, cluster(), RUN, after=("17", "18")) == []
    headers = [task.options["additional_parameters"] for task in tasks(plan, cluster(), RUN, CODE, ("17", "18"))]
    assert [header.get("dependency") for header in headers] == ["afterok:17,afterok:18", None]


def test_all_mistakes_in_the_section_are_told_at_once():
    where = cluster("dokcer", env_vars={"A": "b"}, client_secret="{NOT_SET_ANYWHERE}")
    with pytest.raises(ClusterConfigError) as caught:
        Settings.of(where)
    message = str(caught.value)
    assert "not 'dokcer', did you mean 'docker'?" in message
    assert "env_vars is filled from the plan: write them into the section env_vars of the cluster" in message
    assert "client_secret needs NOT_SET_ANYWHERE, which is not set" in message
    assert message.endswith("(nemo_run of cluster 'test')")


def test_a_refused_plan_leaves_nothing_behind(tmp_path):
    where = replace(cluster(), job_dir=str(tmp_path / "jobs"))
    with pytest.raises(PlanError, match="use --num_training_jobs=1, or use executor: slurm"):
        submit(training_plan(tmp_path, "finish", jobs=2), where)
    assert list(tmp_path.iterdir()) == []


# Without nemo-run


def test_where_nemo_run_is_not_installed_one_line_says_so_and_nothing_is_submitted(tmp_path):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    where = replace(cluster("local", python=str(bare / "bin/python")), job_dir=str(tmp_path / "jobs"))
    with pytest.raises(PlanError, match=r"nemo-run refused: .*bare/bin/python cannot import nemo_run"):
        submit(plan_of(job("a", shell(f"touch {tmp_path}/ran"), tmp_path)), where)
    assert RunStore(tmp_path / "jobs").runs("exp")[0].submission is None
    assert not (tmp_path / "ran").exists()


def test_an_interpreter_that_is_not_there(tmp_path):
    where = replace(cluster("local", python="/nowhere/python"), job_dir=str(tmp_path / "jobs"))
    with pytest.raises(PlanError, match=r"/nowhere/python cannot be started .*\(nemo_run.python\)"):
        submit(plan_of(job("a", shell("true"), tmp_path)), where)


def test_a_dry_run_needs_no_nemo_run(tmp_path):
    where = replace(cluster("local", python="/nowhere/python"), job_dir=str(tmp_path / "jobs"))
    seen = preview(plan_of(job("a", shell("true"), tmp_path)), where)
    assert seen.errors == () and list(seen.scripts) == ["a"]
    assert not any(name.split(".")[0] == "nemo_run" for name in sys.modules)


def test_the_bridge_imports_nothing_of_this_package():
    program = "import sys; sys.argv = ['bridge']; import runpy; runpy.run_path(sys.stdin.read(), run_name='x');"
    program += "print([name for name in sys.modules if name.startswith(('skills_pipe', 'nemo_run'))])"
    answer = subprocess.run(
        [sys.executable, "-P", "-c", program], input=bridge.__file__, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"
