"""The stand-in for pyxis does what pyxis does with the flags that the launcher writes, errors included.

What stands here was compared with pyxis 0.24 and enroot 4.1 on the same version of Slurm.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.pipeline.programs import until
from tests.slurm.cluster import SlurmCluster
from tests.slurm.image import SmallImage
from tests.slurm.ports import Ports

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).resolve().parents[2]

MEET = """
import os, socket, sys
rank, size, port = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"]), int(sys.argv[1])
if rank == 0:
    server = socket.create_server(("node1", port))
    seen = [server.accept()[0].recv(1) for _ in range(size - 1)]
    print("met", len(seen))
else:
    while True:
        try:
            socket.create_connection(("node1", port)).send(b"x")
            break
        except ConnectionRefusedError:
            pass
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a step has ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Runs steps in the image, on a cluster.

    Attributes:
        files: a folder with the file ``text``, for mounts.
    """

    cluster: SlurmCluster
    image: SmallImage
    files: Path

    def run(self, flags: str, *command: str, image: str | None = None, **variables: str) -> Answer:
        """``flags`` are words for srun, where IMAGE, SQSH and FILES stand for paths; ``image=""`` names none."""
        texts = {"FILES": str(self.files), "IMAGE": str(self.image.folder)}
        if "SQSH" in flags:
            texts["SQSH"] = str(self.image.squashed())
        for name, text in texts.items():
            flags = flags.replace(name, text)
        if image is None and "--container-image" not in flags:
            flags += f" --container-image={self.image.folder}"
        done = subprocess.run(
            ["srun", *flags.split(), *command],
            env=self.cluster.environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Answer(code=done.returncode, out=done.stdout, err=done.stderr)


@pytest.fixture
def steps(slurm, pyxis, tmp_path) -> Steps:
    files = tmp_path / "files"
    files.mkdir()
    (files / "text").write_text("from the node\n")
    return Steps(cluster=slurm, image=pyxis, files=files)


@pytest.fixture
def port() -> Iterator[int]:
    ports = Ports()
    yield ports.take()
    ports.give_back()


# What is seen inside


@pytest.mark.parametrize("image", ["IMAGE", pytest.param("SQSH", marks=pytest.mark.slow)])
def test_the_files_are_those_of_the_image(steps, image):
    flags = f"--container-image={image} --container-mounts=FILES:/not/there/before:ro"
    answer = steps.run(flags, "bash", "-c", f"cat /not/there/before/text; ls /nemo_run; test -e {ROOT} || hostname")
    assert (answer.code, answer.out) == (0, "from the node\ncode\nnode1\n")


def test_negative_control_without_an_image_they_are_those_of_the_node(steps):
    answer = steps.run("", "test", "-e", str(ROOT), image="")
    inside = steps.run("", "test", "-e", str(ROOT))
    assert (answer.code, inside.code) == (0, 1)


@pytest.mark.parametrize("image", ["IMAGE", pytest.param("SQSH", marks=pytest.mark.slow)])
def test_tasks_of_two_nodes_meet_under_the_name_of_the_first(steps, image, port):
    (steps.files / "meet.py").write_text(MEET)
    flags = f"-w node[1-2] --ntasks-per-node=2 --container-image={image} --container-mounts=FILES:/data/x:ro"
    answer = steps.run(flags, "python3", "/data/x/meet.py", str(port))
    assert (answer.code, answer.out) == (0, "met 3\n")


def test_the_environment_of_the_job_comes_in_and_the_path_is_that_of_the_image(steps):
    show = ("bash", "-c", "echo $FOO $SLURM_PROCID $PATH")
    host = "/opt/of-the-node:/usr/bin:/bin"
    answer = steps.run("", *show, FOO="a  b", PATH=host)
    assert answer.out == "a b 0 /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
    assert steps.run("--container-env=X,PATH", *show, PATH=host).out == f"0 {host}\n"
    assert steps.run("--container-env=XPATH,PAT", *show, PATH=host).out.split()[-1].startswith("/usr/local/sbin")


@pytest.mark.parametrize(("flags", "folder"), [("--container-workdir=/usr/lib", "/usr/lib"), ("", "/root")])
def test_a_step_starts_in_its_working_folder_else_at_home(steps, flags, folder):
    assert steps.run(flags, "pwd", HOME="/root").out == f"{folder}\n"


@pytest.mark.parametrize(
    ("flag", "seen"),
    [("", False), ("--no-container-mount-home", False), ("--container-mount-home", True)],
)
def test_the_home_folder_is_mounted_only_when_asked_for(steps, flag, seen):
    answer = steps.run(flag, "bash", "-c", "test -e $HOME/text", HOME=str(steps.files))
    assert (answer.code == 0) is seen


def test_a_batch_script_can_run_inside_as_well(steps, tmp_path):
    script = tmp_path / "inside.sh"
    script.write_text(f"#!/bin/bash\ntest -e {ROOT} && exit 1\ntest -e /nemo_run && exit 75\n")
    flags = (f"--container-image={steps.image.folder}", "--output=/dev/null")
    job = steps.cluster.run("sbatch", "--parsable", *flags, str(script)).strip()
    ended = lambda: steps.cluster.run("scontrol", "show", "job", "-o", job)  # noqa: E731
    until(lambda: "JobState=FAILED" in ended(), "it has ended")
    assert " ExitCode=75:0 " in ended()


# What can be written


@pytest.mark.parametrize(
    "flags",
    [
        "",
        "--container-readonly",
        "--container-writable --container-readonly",
        "--container-mounts=FILES:/new:ro",
        "--container-mounts=FILES/text:/new:ro",
    ],
)
def test_what_is_read_only_stays_as_it_is(steps, flags):
    path = "/new/text" if "FILES:/new" in flags else "/new"
    answer = steps.run(flags, "bash", "-c", f"echo changed > {path}")
    assert (answer.code, answer.out) == (1, "")
    assert "Read-only file system" in answer.err
    assert (steps.files / "text").read_text() == "from the node\n"


@pytest.mark.parametrize("target", ["/new", "/new:rw", "/tmp/new", "/nemo_run"])
def test_negative_control_a_mount_without_ro_can_be_written(steps, target):
    path = target.removesuffix(":rw")
    answer = steps.run(f"--container-mounts=FILES:{target}", "bash", "-c", f"echo changed > {path}/text")
    assert (answer.code, answer.err) == (0, "")
    assert (steps.files / "text").read_text() == "changed\n"


def test_what_is_written_to_a_writable_root_is_gone_with_the_step(steps):
    assert steps.run("--container-writable", "bash", "-c", "echo x > /mark && cat /mark").out == "x\n"
    assert not (steps.image.folder / "mark").exists()
    assert steps.run("--container-writable", "cat", "/mark").code == 1


def test_each_step_has_a_tmp_of_its_own(steps):
    (steps.files / "text").write_text("x")
    assert steps.run("", "bash", "-c", f"echo x > /tmp/mark; test ! -e {steps.files}").code == 0
    assert not Path("/tmp/mark").exists()


def test_a_container_with_a_name_is_kept_on_its_node(steps):
    named = "--container-name=kept"
    assert steps.run(f"-w node1 {named} --container-writable", "touch", "/mark").code == 0
    assert steps.run(f"-w node1 {named}", "test", "-e", "/mark", image="").code == 0
    other = steps.run(f"-w node2 {named}", "true", image="")
    assert other.code == 1 and 'a container with name "pyxis_kept" does not exist' in other.err


# Exit codes


@pytest.mark.parametrize(
    ("flags", "script", "code"),
    [
        ("", "exit 75", 75),
        ("-n4", "exit $((SLURM_PROCID == 2 ? 75 : 0))", 75),
        ("-n4 --kill-on-bad-exit=1", "[ $SLURM_PROCID = 2 ] && exit 75; sleep 600", 143),
    ],
)
def test_the_exit_code_of_a_task_arrives_as_without_containers(steps, flags, script, code):
    assert steps.run(flags, "bash", "-c", script).code == code
    assert steps.run(flags, "bash", "-c", script, image="").code == code


# Errors


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        ("--container-image=/nope.sqsh", 1, "pyxis: [ERROR] Invalid argument: /nope.sqsh"),
        ("--container-image=FILES/text", 1, "pyxis: [ERROR] Invalid image format: "),
        ("--container-image=debian:12", 1, "pyxis: container image not found: debian:12"),
        ("--container-mounts=/nope:/x", 1, "pyxis: --container-mounts: source path does not exist: /nope"),
        ("--container-mounts=FILES:/x:rx", 1, "pyxis: --container-mounts: unknown flag: rx"),
        ("--container-mounts=FILES:x", 1, "paths must be absolute"),
        ("--container-workdir=/nope", 1, "pyxis: couldn't chdir to /nope: No such file or directory"),
        ("--container-save=/tmp/x.sqsh", 1, "pyxis: --container-save: not possible here"),
        ("--container-name=a/b", 1, "pyxis: --container-name: invalid name: a/b"),
    ],
)
def test_a_container_that_cannot_be_is_an_error(steps, flags, code, message):
    answer = steps.run(flags, "true")
    assert answer.code == code
    assert message in answer.err.replace(str(steps.files), "FILES")


def test_a_command_that_the_image_lacks_is_not_that_of_the_node(steps):
    answer = steps.run("", "squeue", "--version")
    assert (answer.code, answer.out) == (2, "")
    assert "execve(): squeue: No such file or directory" in answer.err
    assert steps.run("", "squeue", "--version", image="").code == 0


def test_without_an_image_the_other_flags_are_ignored_aloud(steps):
    answer = steps.run("--container-mounts=FILES:/x", "bash", "-c", f"test -e {ROOT} && exit 4", image="")
    assert answer.code == 4
    assert "pyxis: ignoring --container-mounts because neither --container-image nor --container-name is set" in (
        answer.err
    )


def test_of_two_lists_of_mounts_the_last_one_wins(steps):
    flags = "--container-mounts=FILES:/first --container-mounts=FILES:/second"
    assert steps.run(flags, "bash", "-c", "ls -d /first /second").out == "/second\n"


def test_srun_knows_no_other_flags_of_containers(steps):
    answer = steps.run("--container-nope", "true")
    assert answer.code == 255 and "unrecognized option '--container-nope'" in answer.err


def test_flags_without_effect_are_accepted(steps):
    flags = "--container-remap-root --no-container-remap-root --container-entrypoint --no-container-entrypoint"
    assert steps.run(flags, "true") == Answer(code=0, out="", err="")


# Many at once


@pytest.mark.slow
def test_steps_that_run_together_do_not_get_into_each_others_way(steps):
    """Of one squashfs file, with a mount point to be made: 8 steps on 2 nodes, 16 tasks that wait for each other.

    Two are started at a time: slurmd 22.05 itself aborts now and then when it is to launch many at the same moment.
    """
    flags = (
        f"--container-image={steps.image.squashed()}",
        f"--container-mounts={steps.files}:/not/there/before",
    )
    here = "/not/there/before"
    command = f"""
        cp {here}/text {here}/$SLURM_JOB_ID-$SLURM_PROCID
        until [ "$(ls {here}/*-* | wc -l)" = 16 ]; do sleep 0.02; done"""
    many = []
    for pair in range(4):
        many += [
            subprocess.Popen(
                ["srun", "-p", "cpu", "-w", "node[1-2]", "-n2", *flags, "bash", "-c", command],
                env=steps.cluster.environment,
            )
            for _ in range(2)
        ]
        until(lambda: len(list(steps.files.glob("*-*"))) == 4 * (pair + 1), "both run")  # noqa: B023 -- called at once
    assert [step.wait(60) for step in many] == [0] * 8
