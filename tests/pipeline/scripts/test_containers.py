"""The words by which each runtime starts a command, and that variables, GPUs and users arrive as they should."""

import json
import os
import subprocess
import sys

import pytest

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.cluster.config import ContainerRuntime
from skills_pipe.pipeline.plan import Mount
from skills_pipe.pipeline.scripts.containers import ContainerSpec, contain, shares_root
from skills_pipe.pipeline.scripts.render import join

SPEC = ContainerSpec(
    image="org/name:tag",
    mounts=(Mount(source="/lustre/lab", target="/workspace"), Mount(source="/data", target="/data", read_only=True)),
    working_dir="/nemo_run/code",
    pass_env=("HF_HOME", "PYTHONPATH"),
    gpus=True,
    writable=True,
)
PLAIN = ContainerSpec(image="org/name:tag")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def words(runtime, spec):
    contained = contain(runtime, spec)
    return [*contained.srun_flags, "|", *contained.prefix]


def test_pyxis_takes_flags_of_srun():
    assert words(ContainerRuntime.PYXIS, SPEC) == [
        "--container-image=org/name:tag",
        "--container-mounts=/lustre/lab:/workspace,/data:/data:ro",
        "--container-workdir=/nemo_run/code",
        "--no-container-mount-home",
        "--container-writable",
        "--container-env=HF_HOME,PYTHONPATH",
        "|",
    ]
    assert words(ContainerRuntime.PYXIS, PLAIN) == [
        "--container-image=org/name:tag",
        "--no-container-mount-home",
        "|",
    ]


def test_apptainer_is_a_program_that_starts_the_command():
    assert words(ContainerRuntime.APPTAINER, SPEC)[5:] == [
        *("apptainer", "exec", "--no-mount=home,cwd"),
        *("--bind", "/lustre/lab:/workspace", "--bind", "/data:/data:ro"),
        *("--pwd", "/nemo_run/code", "--nv", "--writable-tmpfs", "docker://org/name:tag"),
    ]
    assert words(ContainerRuntime.APPTAINER, PLAIN) == [
        *("|", "apptainer", "exec", "--no-mount=home,cwd", "docker://org/name:tag"),
    ]


@pytest.mark.parametrize("image", ["/images/a.sif", "docker://org/name:tag", "oras://host/name:tag"])
def test_apptainer_gets_files_and_addresses_as_they_are(image):
    assert contain(ContainerRuntime.APPTAINER, ContainerSpec(image=image)).prefix[-1] == image


def test_charliecloud_gets_its_words_through_a_shell():
    assert words(ContainerRuntime.CHARLIECLOUD, SPEC)[4:] == [
        *("org/name:tag", "--private-tmp", "--set-env=HOME=/root"),
        *("--bind=/lustre/lab:/workspace", "--bind=/data:/data", "--cd=/nemo_run/code", "org/name:tag", "--"),
    ]


@pytest.mark.parametrize(
    ("environment", "path"), [("A=1\nPATH=/opt/venv/bin:/bin\n", "/opt/venv/bin:/bin"), (None, PATH)]
)
def test_charliecloud_takes_the_path_of_the_image(told, tmp_path, environment, path):
    if environment:
        (tmp_path / "image" / "ch").mkdir(parents=True)
        (tmp_path / "image" / "ch" / "environment").write_text(environment)
    argv = told(ContainerRuntime.CHARLIECLOUD, ContainerSpec(image=str(tmp_path / "image")), ["true"], {})["argv"]
    assert argv == [
        f"--set-env=PATH={path}",
        "--private-tmp",
        "--set-env=HOME=/root",
        f"{tmp_path}/image",
        "--",
        "true",
    ]


def test_docker_and_podman_get_their_words_through_a_shell():
    assert words(ContainerRuntime.DOCKER, SPEC)[4:] == [
        *("docker", "--rm", "--init", "--network=host", "--ipc=host"),
        *("--volume", "/lustre/lab:/workspace", "--volume", "/data:/data:ro"),
        *("--workdir", "/nemo_run/code", "org/name:tag"),
    ]
    assert words(ContainerRuntime.PODMAN, PLAIN)[4:] == [
        *("podman", "--rm", "--init", "--network=host", "--ipc=host", "--read-only", "--tmpfs=/tmp", "org/name:tag"),
    ]


def test_without_containers_the_command_starts_in_its_folder():
    assert words(ContainerRuntime.NONE, ContainerSpec(image="", working_dir="/code")) == ["--chdir=/code", "|"]


@pytest.mark.parametrize("runtime", ContainerRuntime)
def test_every_runtime_is_known(runtime):
    contain(runtime, PLAIN)
    assert isinstance(shares_root(runtime), bool)


@pytest.mark.parametrize("path", ["/a,b", "/a:b", "/a\nb"])
@pytest.mark.parametrize("runtime", ContainerRuntime)
def test_paths_that_would_be_read_otherwise_are_refused(runtime, path):
    with pytest.raises(PlanError, match="cannot be mounted"):
        contain(runtime, ContainerSpec(image="a", mounts=(Mount(source=path, target="/x"),)))


# --- what the programs are called with, by stand-ins that tell it

STAND_IN = """#!{python}
import json, os, sys
json.dump({{"argv": sys.argv[1:], "env": dict(os.environ)}}, open({told!r}, "w"))
"""


@pytest.fixture
def told(tmp_path):
    """Run a command as a runtime would; what its program was called with."""

    def run(runtime, spec, command, env):
        for name in ("docker", "podman", "apptainer", "ch-run"):
            program = tmp_path / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(STAND_IN.format(python=sys.executable, told=str(tmp_path / "told.json")))
            program.chmod(0o755)
        script = join([*contain(runtime, spec).prefix, *command])
        subprocess.run(["bash", "-c", script], check=True, env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", **env})
        return json.loads((tmp_path / "told.json").read_text())

    return run


def names(argv):
    """Variables that a daemon's program is told to take along."""
    return {argv[at + 1] for at, word in enumerate(argv) if word == "--env"}


@pytest.mark.parametrize("runtime", [ContainerRuntime.DOCKER, ContainerRuntime.PODMAN])
def test_a_daemon_takes_the_variables_of_the_job_by_name_and_leaves_those_of_the_machine(told, runtime):
    env = {"HF_TOKEN": "a secret", "SLURM_PROCID": "3", "LD_PRELOAD": "", "HOME": "/root", "TMPDIR": "/scratch"}
    call = told(runtime, SPEC, ["python", "-c", "x y"], env)
    assert {"HF_TOKEN", "SLURM_PROCID"} <= names(call["argv"])
    assert not {"PATH", "HOME", "TMPDIR", "LD_PRELOAD", "CUDA_VISIBLE_DEVICES"} & names(call["argv"])
    assert call["env"]["HF_TOKEN"] == "a secret"
    assert "a secret" not in " ".join(call["argv"])
    assert call["argv"][0] == "run"
    assert call["argv"][-4:] == ["org/name:tag", "python", "-c", "x y"]


def test_docker_runs_as_the_user_with_the_gpus_of_the_step(told):
    env = {"SLURM_STEP_GPUS": "2,3", "SLURM_JOB_GPUS": "0,1,2,3"}
    argv = told(ContainerRuntime.DOCKER, SPEC, ["true"], env)["argv"]
    assert argv[argv.index("--user") + 1] == f"{os.getuid()}:{os.getgid()}"
    assert argv[argv.index("--gpus") + 1] == '"device=2,3"'
    assert "--gpus" not in told(ContainerRuntime.DOCKER, PLAIN, ["true"], {})["argv"]


def test_podman_keeps_the_user_and_names_each_gpu(told):
    argv = told(ContainerRuntime.PODMAN, SPEC, ["true"], {"SLURM_JOB_GPUS": "0,5"})["argv"]
    devices = [argv[at + 1] for at, word in enumerate(argv) if word == "--device"]
    assert sorted(devices) == ["nvidia.com/gpu=0", "nvidia.com/gpu=5"]
    assert "--userns=keep-id" in argv


def test_variables_of_the_job_win_over_those_of_an_apptainer_image(told):
    call = told(ContainerRuntime.APPTAINER, SPEC, ["true"], {"HF_HOME": "/data/hf home"})
    assert call["env"]["APPTAINERENV_HF_HOME"] == "/data/hf home"
    assert call["argv"][-2:] == ["docker://org/name:tag", "true"]


@pytest.mark.parametrize("runtime", [ContainerRuntime.DOCKER, ContainerRuntime.PODMAN, ContainerRuntime.APPTAINER])
def test_the_command_reaches_a_container_word_by_word(told, runtime):
    tokens = ["", "'", '"', "$HOME", "`id`", "a b", "\\", "*", "\n", "é", "-n", "--env", "&&", "\t"]
    assert told(runtime, SPEC, ["program", *tokens], {})["argv"][-len(tokens) :] == tokens
