"""Commands in real containers on a real Slurm: what they see, what they may write, and which secrets reach them."""

import json
import os
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from skills_pipe.pipeline.cli import main
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.code.package import pack
from skills_pipe.pipeline.decisions.preview import SubmitFlags
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.plan import Command, Job, Launch, Member, Plan, Resources, Stage
from skills_pipe.pipeline.records.store import RunStore
from skills_pipe.pipeline.submit import submit

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

FROM_LOGIN = "token-of-the-login-environment"
FROM_CONFIG = "token-of-the-configuration"
FOR_ALL = "token-that-is-always-forwarded"
PLANTED = (FROM_LOGIN, FROM_CONFIG, FOR_ALL)


@dataclass
class World:
    """A cluster configuration, and the folder that its jobs see as /workspace."""

    path: Path
    folder: Path
    runtime: str

    @property
    def inside(self):
        """The same folder as jobs see it."""
        return str(self.folder) if self.runtime == "none" else "/workspace"

    def run(self, *words, expname="job", flags=()):
        """``ns run_cmd``, waited for; the text of its log."""
        where = [f"--cluster={self.path}", f"--log_dir={self.inside}/logs", f"--expname={expname}"]
        assert main(["run_cmd", *where, *flags, *words]) == 0
        run = RunStore(self.folder / "jobs").find(expname)
        while not all(status.state.ended for status in statuses_of(run).values()):
            time.sleep(0.2)
        return self.log(expname)

    def log(self, name, component="main"):
        logs = sorted((self.folder / "logs").glob(f"{component}_{name}_*_srun.log"), key=os.path.getmtime)
        return logs[-1].read_text() if logs else ""


def on(*runtimes):
    """The runtimes that a test is about."""
    return pytest.mark.parametrize("world", runtimes, indirect=True)


everywhere = on("pyxis", "charliecloud", "none")
in_containers = on("pyxis", "charliecloud")
where_one_can_install = on("pyxis", "none")


@pytest.fixture
def world(request, slurm, tmp_path, monkeypatch):
    """A working folder that is a git repository with a change, and a cluster with one runtime."""
    runtime = request.param
    image = request.getfixturevalue(runtime) if runtime != "none" else None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOGIN_SECRET_TOKEN", FROM_LOGIN)
    monkeypatch.setenv("HF_TOKEN", FOR_ALL)
    for name in ("here", "workspace/logs", "workspace/jobs"):
        (tmp_path / name).mkdir(parents=True)
    subprocess.run(["git", "init", "-q", f"{tmp_path}/here"], check=True)
    (tmp_path / "here" / "mine.py").write_text("print('uncommitted code')\n")
    monkeypatch.chdir(tmp_path / "here")
    lines = [
        "executor: slurm",
        f"job_dir: {tmp_path}/workspace/jobs",
        "account: root",
        "partition: batch",
        "cpu_partition: cpu",
        "default_timeout: 10:00",
        f"env_vars: [HF_HOME=/workspace/hf, GREETING=hello, MY_API_KEY={FROM_CONFIG}]",
        f"container_runtime: {runtime}",
    ]
    if image:
        mounts = [f"{tmp_path}/workspace:/workspace", *(mount.removesuffix(":ro") for mount in image.mounts)]
        lines += [
            f"containers: {{nemo-skills: {image.folder}, nemo-rl: {image.folder}}}",
            f"mounts: {json.dumps(mounts)}",
        ]
    (tmp_path / "here.yaml").write_text("\n".join(lines) + "\n")
    return World(path=tmp_path / "here.yaml", folder=tmp_path / "workspace", runtime=runtime)


@everywhere
def test_a_job_runs_the_code_that_one_works_on(world):
    assert world.run("python", "mine.py") == "uncommitted code\n"
    where = world.run("python", "-c", "import skills_pipe, os; print(skills_pipe.__file__, os.getcwd())", expname="own")
    folder = "/nemo_run/code" if world.runtime != "none" else str(next((world.folder / "jobs/code").iterdir()))
    assert where == f"{folder}/skills_pipe/__init__.py {folder}\n"


@everywhere
def test_the_code_of_an_earlier_run_can_be_taken(world):
    world.run("python", "mine.py", expname="first")
    Path("mine.py").write_text("print('changed')\n")
    assert world.run("python", "mine.py", expname="second", flags=["--reuse_code_exp=first"]) == "uncommitted code\n"
    assert world.run("python", "mine.py", expname="third", flags=["--no-reuse_code"]) == "changed\n"


@everywhere
def test_variables_arrive_and_the_jobs_own_win(world):
    text = world.run("bash", "-c", 'echo "$GREETING $HF_HOME"; python -c "import sys; print(sys.version_info[0])"')
    assert text == "hello /workspace/hf\n3\n"


@in_containers
def test_a_container_sees_its_mounts_and_not_the_node(world):
    (world.folder / "data").write_text("from the cluster\n")
    text = world.run("bash", "-c", f"cat /workspace/data; ls -d {world.folder}; echo made > /workspace/out; true")
    assert "from the cluster\n" in text
    assert f"cannot access '{world.folder}': No such file or directory" in text
    assert (world.folder / "out").read_text() == "made\n"


@on("pyxis")
def test_code_cannot_be_changed_by_a_job(world):
    """Root may write what nobody else may, where mounts are not read-only: this is about the mount."""
    text = world.run("bash", "-c", "touch new || echo refused; touch /workspace/new && echo written elsewhere")
    assert "touch: cannot touch 'new': Read-only file system\n" in text
    assert "refused\n" in text
    assert "written elsewhere\n" in text, "the control: mounts are not read-only by themselves"


@where_one_can_install
def test_an_installation_is_done_once_per_node_and_seen_by_all_its_ranks(world):
    place = "/opt/installed" if world.runtime == "pyxis" else "$SLURM_JOB_ID-$SLURMD_NODENAME"
    base = "" if world.runtime == "pyxis" else f"{world.folder}/"
    install = f'echo x >> "{base}{place}"; echo "node $SLURM_NODEID" >> {world.inside}/installs'
    command = Command(
        argv=("bash", "-c", f'cat "{base}{place}"'),
        launch=Launch.PER_NODE,
        num_tasks=2,
        installation_command=install,
    )
    submission = submit_one(world, command, nodes=2)
    assert submission.succeeded
    assert world.log("one") == "x\n" * 4
    assert sorted((world.folder / "installs").read_text().splitlines()) == ["node 0", "node 1"]


@where_one_can_install
def test_an_installation_that_fails_stops_the_job(world):
    command = Command(
        argv=("echo", "started"), launch=Launch.PER_NODE, num_tasks=2, installation_command="echo no; exit 3"
    )
    assert not submit_one(world, command).succeeded
    assert "started" not in world.log("one")


def submit_one(world, command, *, nodes=1, beside=(), expname="one"):
    """A plan of one job, submitted and waited for."""
    cluster = load_cluster(str(world.path))
    job = Job(
        name=expname,
        stage="stage",
        command=command,
        resources=Resources(num_nodes=nodes, partition="cpu"),
        log_dir=f"{world.inside}/logs",
        beside=tuple(beside),
    )
    plan = Plan(
        expname=expname, command="test", stages=(Stage(name="stage", output=None),), jobs=(job,), mounts=cluster.mounts
    )
    return submit(plan, cluster, flags=SubmitFlags(code=pack(Path.cwd()))).wait()


# --- secrets


SHOW = ("bash", "-c", "env; if [ -r /nemo_run/secrets.env ]; then cat /nemo_run/secrets.env; fi")


@everywhere
def test_planted_secrets_reach_those_who_may_have_them_and_nothing_else(world, slurm):
    sandbox = Member(name="sandbox", command=Command(argv=SHOW, secrets=(), mounts=False))
    client = Member(name="client", command=Command(argv=SHOW, secrets=("HF_TOKEN",)))
    submission = submit_one(world, Command(argv=SHOW), beside=(sandbox, client))
    main_log, client_log, sandbox_log = (world.log("one", name) for name in ("main", "client", "sandbox"))
    assert submission.succeeded, (main_log, client_log, sandbox_log)

    # The control: who may have a secret has it, so that what follows means something.
    assert f"HF_TOKEN={FOR_ALL}" in main_log
    assert f"MY_API_KEY={FROM_CONFIG}" in main_log
    assert f"HF_TOKEN={FOR_ALL}" in client_log

    assert FROM_CONFIG not in client_log
    assert [text for text in PLANTED if text in sandbox_log] == []
    assert "GREETING=hello" in sandbox_log, "it ran, and its variables are there"
    assert FROM_LOGIN not in main_log, "what the configuration does not name does not come along"

    may_tell = {log for name in ("main", "client") for log in (world.folder / "logs").glob(f"{name}_*")} | {world.path}
    (secrets,) = files_with(PLANTED, below=world.path.parent) - may_tell
    assert secrets.name == "secrets.env"
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert files_with(PLANTED, below=slurm.base) == set(), "in what Slurm itself keeps"


def files_with(texts, *, below):
    """All files that hold one of the texts."""
    found = set()
    for path in below.rglob("*"):
        if path.is_file() and any(text.encode() in path.read_bytes() for text in texts):
            found.add(path)
    return found


@everywhere
def test_a_secret_is_on_no_command_line(world):
    """Every argv on the machine, while the job runs, seen from within a step and from outside."""
    look = (
        f"for file in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $file; echo; done 2>/dev/null > {world.inside}/argv; true"
    )
    world.run("bash", "-c", look)
    seen = (world.folder / "argv").read_text()
    assert re.search(r"srun|bash -c", seen), "the control: command lines are seen"
    assert [text for text in PLANTED if text in seen] == []
