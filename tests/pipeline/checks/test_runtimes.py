"""What a runtime cannot do is told before the queue."""

from dataclasses import replace

import pytest

from skills_pipe.pipeline.checks.runtimes import check_runtime
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.plan import Command, Job, Mount, Plan, Resources, Stage

CLUSTER = ClusterConfig(
    name="big", executor=ExecutorKind.SLURM, job_dir="/jobs", containers={"nemo-skills": "org/name:tag"}
)
DATA = Mount(source="/lustre/data", target="/data", read_only=True)


def found(runtime, *, mounts=(), installation=None, image="org/name:tag"):
    command = Command(argv=("true",), installation_command=installation)
    job = Job(name="a", stage="a", command=command, resources=Resources(), log_dir="/data/logs")
    plan = Plan(expname="a", command="a", stages=(Stage(name="a", output=None),), jobs=(job,), mounts=mounts)
    cluster = replace(CLUSTER, container_runtime=runtime, containers={"nemo-skills": image})
    return [str(finding) for finding in check_runtime(plan, cluster)]


@pytest.mark.parametrize("runtime", [each for each in ContainerRuntime if each is not ContainerRuntime.CHARLIECLOUD])
def test_most_runtimes_do_all_of_it(runtime):
    assert found(runtime, mounts=(DATA,), installation="pip install x") == []


def test_charliecloud_has_no_read_only_mounts():
    assert found(ContainerRuntime.CHARLIECLOUD, mounts=(replace(DATA, read_only=False),)) == []
    assert found(ContainerRuntime.CHARLIECLOUD, mounts=(DATA,)) == [
        "error: /data cannot be mounted read-only: charliecloud has no such mounts (mounts of cluster 'big'): "
        "leave :ro out, and protect the folder on the cluster itself"
    ]


def test_nothing_can_be_installed_in_an_image_of_charliecloud():
    assert found(ContainerRuntime.CHARLIECLOUD, installation="pip install x") == [
        "error: nothing can be installed in a container of charliecloud: its image is read-only "
        "(--installation_command): install it in the image"
    ]


@pytest.mark.parametrize("path", ["/lustre/a,b", "/lustre/a:b"])
def test_paths_that_cannot_be_mounted_are_named_once(path):
    (told,) = found(ContainerRuntime.PYXIS, mounts=(Mount(source=path, target="/a"), Mount(source=path, target="/b")))
    assert f"'{path}' cannot be mounted: it has a comma or a colon" in told
    assert found(ContainerRuntime.NONE, mounts=(Mount(source=path, target="/a"),)) == []


@pytest.mark.parametrize(
    ("runtime", "image", "good"),
    [
        (ContainerRuntime.DOCKER, "/images/a.sqsh", False),
        (ContainerRuntime.DOCKER, "docker://org/name", False),
        (ContainerRuntime.PODMAN, "/images/a.sif", False),
        (ContainerRuntime.PODMAN, "host/org/name:tag", True),
        (ContainerRuntime.CHARLIECLOUD, "docker://org/name", False),
        (ContainerRuntime.CHARLIECLOUD, "/images/folder", True),
        (ContainerRuntime.APPTAINER, "docker://org/name", True),
        (ContainerRuntime.PYXIS, "docker://org/name", True),
    ],
)
def test_images_have_a_form_that_the_runtime_knows(runtime, image, good):
    assert (found(runtime, image=image) == []) is good
