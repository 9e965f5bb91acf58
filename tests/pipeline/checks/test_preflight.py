"""What is found before anything waits in a queue."""

from dataclasses import replace
from typing import Any

import pytest

from skills_pipe.pipeline.checks.finding import errors_in
from skills_pipe.pipeline.checks.images import check_images
from skills_pipe.pipeline.checks.preflight import (
    check_cluster,
    check_hub_names,
    check_machine,
    check_overlaps,
    check_paths,
)
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, EnvVar, ExecutorKind
from skills_pipe.pipeline.commands.sft import plan
from skills_pipe.pipeline.commands.sft.options import SftOptions
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.plan import Mount, Plan
from tests.pipeline.commands.sft.checks.findings import BASE, HERE, texts

SLURM = ClusterConfig(
    name="c",
    executor=ExecutorKind.SLURM,
    container_runtime=ContainerRuntime.PYXIS,
    containers={"nemo-rl": "/i.sqsh"},
    job_dir="/jobs",
    account="me",
    mounts=(
        Mount(source="/lustre/w", target="/workspace"),
        Mount(source="/lustre/d", target="/data", read_only=True),
    ),
    env=(EnvVar(name="HF_HOME", value="/workspace/hf"),),
)


@pytest.fixture(autouse=True)
def _no_tokens(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "w")


def planned(cluster: ClusterConfig = SLURM, **changes: Any) -> Plan:
    return plan(build(SftOptions, BASE | changes), (), cluster)


def test_a_good_run_has_no_findings():
    assert check_cluster(planned(), SLURM) == []
    assert check_paths(planned(), SLURM) == []


# --- the cluster


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"env": ()}, "error: HF_HOME is not set"),
        ({"env": (EnvVar(name="HF_HOME", value="/nowhere"),)}, "error: HF_HOME /nowhere is on no mount"),
        ({"env": (*SLURM.env, EnvVar(name="NEEDED", required=True))}, "error: NEEDED must be set"),
        ({"account": None}, "warning: no account is set"),
        ({"dependency_type": "afterany"}, "warning: dependency_type afterany has no effect"),
    ],
)
def test_what_a_configuration_lacks_is_told(changes, told):
    assert told in texts(check_cluster(planned(), replace(SLURM, **changes)))


def test_the_check_of_hf_home_can_be_skipped():
    assert check_cluster(planned(), replace(SLURM, env=(), skip_hf_home_check=True)) == []


def test_every_container_needs_an_image():
    told = texts(check_images(planned(), replace(SLURM, containers={"nemo-rk": "/o.sqsh"})))
    assert told == "error: no image for 'nemo-rl' (containers of cluster 'c'): did you mean 'nemo-rk'?"
    assert check_images(planned(), SLURM) == []


def test_an_image_can_be_named_directly():
    bare = replace(planned(), jobs=tuple(_with_container(job, "/images/x.sqsh") for job in planned().jobs))
    assert check_images(bare, replace(SLURM, containers={})) == []


@pytest.mark.parametrize(
    ("image", "refused"),
    [
        ("rl.sqsh", True),
        ("images/rl.sif", True),
        ("/images/rl.sqsh", False),
        ("./rl.sqsh", False),
        ("nvcr.io/nvidia/nemo:25.07", False),
        ("docker://org/rl.sif", False),
    ],
)
def test_a_file_that_would_be_looked_for_in_a_registry_is_told(image, refused):
    """pyxis and apptainer take ``rl.sqsh`` for the name of an image on a registry."""
    told = texts(check_images(planned(), replace(SLURM, containers={"nemo-rl": image})))
    assert ("would be looked for in a registry" in told) is refused


def test_here_containers_and_mounts_are_told_to_have_no_effect():
    here = replace(HERE, containers={"nemo-rl": "x"}, mounts=(Mount(source="/a", target="/b"),))
    assert texts(check_cluster(planned(HERE), here)).count("have no effect on this machine") == 2
    same = replace(HERE, mounts=(Mount(source="/a", target="/a"),))
    assert check_cluster(planned(HERE), same) == []


# --- paths


def test_every_path_must_be_on_a_mount():
    found = texts(check_paths(planned(output_dir="/home/me/run", training_data="/workspace2/d.jsonl"), SLURM))
    assert "/home/me/run is on no mount of cluster 'c' (it has /workspace, /data): use a mounted folder" in found
    assert "/workspace2/d.jsonl is on no mount" in found
    # All that an option makes is told by the folder that was named, once.
    assert found.count("is on no mount") == 2


def test_a_path_of_the_cluster_is_told_as_jobs_see_it():
    source = SLURM.mounts[0].source
    found = texts(check_paths(planned(training_data=f"{source}/d.jsonl"), SLURM))
    assert f"{source}/d.jsonl is on no mount" in found
    assert f": write it as jobs see it: {SLURM.mounts[0].target}/d.jsonl" in found


def test_a_misspelt_mount_is_told_with_the_right_one():
    found = texts(check_paths(planned(output_dir="/workspac/run"), SLURM))
    assert "/workspac/run is on no mount of cluster 'c' (it has /workspace, /data): did you mean '/workspace'?" in found


def test_outputs_must_be_writable_and_inputs_need_not():
    found = texts(check_paths(planned(output_dir="/data/run"), SLURM))
    assert "/data/run is on a mount that is read-only" in found
    assert "d.jsonl" not in found


def test_outputs_on_a_cluster_must_be_absolute():
    assert "run/checkpoints is not an absolute path" in texts(check_paths(planned(output_dir="run"), SLURM))


def test_inputs_on_a_cluster_must_be_absolute_or_ids():
    """Jobs there do not start in the current folder, where such a file may well be."""
    made = planned()
    stage = replace(made.stages[0], inputs=("data/gsm8k/test.jsonl", "gen*.jsonl", "org/model"))
    told = texts(check_paths(replace(made, stages=(stage, *made.stages[1:])), SLURM))
    assert "gsm8k/test.jsonl is not an absolute path" in told and "gen*.jsonl is not an absolute path" in told
    assert "org/model" not in told


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"final_hf_path": "/workspace/base"}, "error: /workspace/base would be written, and it is read"),
        (
            {"hf_model": "/workspace/run/checkpoints/step_1"},
            "error: /workspace/run/checkpoints would be written, and /workspace/run/checkpoints/step_1 is read",
        ),
        # The same folder by another mount.
        ({"hf_model": "/again/base", "final_hf_path": "/workspace/base"}, "and /again/base is read"),
        ({"training_data": "/workspace/*/model", "final_hf_path": "/workspace/run/model"}, "*/model is read"),
    ],
)
def test_what_is_read_must_not_be_written(changes, told):
    cluster = replace(SLURM, mounts=(*SLURM.mounts, Mount(source="/lustre/w", target="/again")))
    findings = list(check_overlaps(planned(cluster, **{"hf_model": "/workspace/base", **changes}), cluster))
    assert told in texts(findings) and len(findings) == 1


def test_the_control_beside_each_other_they_may_lie():
    assert not list(check_overlaps(planned(hf_model="/workspace/run2", final_hf_path="/workspace/run/model"), SLURM))


def test_without_containers_nothing_needs_a_mount():
    bare = replace(SLURM, container_runtime=ContainerRuntime.NONE, mounts=())
    assert check_paths(planned(output_dir="/anywhere"), bare) == []


def test_a_name_that_looks_like_a_misspelt_path_is_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    assert "no models/lama here" in texts(check_hub_names(planned(HERE, hf_model="models/lama"), HERE))
    assert check_hub_names(planned(HERE, hf_model="meta-llama/Llama-3.1-8B"), HERE) == []


# --- the machine


def test_gpus_that_are_not_there_are_told():
    made = planned(HERE, num_gpus=2)
    assert check_machine(made, gpus=2) == []
    assert errors_in(check_machine(made, gpus=1))
    no_gpu = check_machine(made, gpus=0)
    assert "2 processes on its CPU cores" in texts(no_gpu)
    assert not errors_in(no_gpu)


def test_idle_gpus_are_told():
    assert "add --num_gpus=4" in texts(check_machine(planned(HERE, num_gpus=0), gpus=4))
    assert check_machine(planned(HERE, num_gpus=0), gpus=0) == []


def test_this_machine_is_one_node():
    assert "this machine is one node" in texts(check_machine(planned(HERE, num_nodes=2), gpus=1))


def _with_container(job: Any, container: str) -> Any:
    return replace(job, command=replace(job.command, container=container))
