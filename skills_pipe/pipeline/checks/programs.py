"""Whether a cluster has what starts its containers."""

from __future__ import annotations

from skills_pipe.pipeline.checks.finding import Checked, warning
from skills_pipe.pipeline.checks.questions import Answers
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind

_TESTS = {
    ContainerRuntime.PYXIS: "srun --help | grep -e --container-image",
    ContainerRuntime.APPTAINER: "command -v apptainer || command -v singularity",
    ContainerRuntime.CHARLIECLOUD: "command -v ch-run",
    ContainerRuntime.DOCKER: "command -v docker",
    ContainerRuntime.PODMAN: "command -v podman",
}
"""Shell commands that end well where a runtime is."""


def tests_of(cluster: ClusterConfig) -> dict[str, str]:
    """Name -> shell command to ask a cluster; none where nothing has to be there."""
    runtime = cluster.container_runtime
    wanted = cluster.executor is ExecutorKind.SLURM and runtime in _TESTS
    return {runtime.value: _TESTS[runtime]} if wanted else {}


def check_programs(cluster: ClusterConfig, answers: Answers) -> Checked:
    """Whether the runtime is on the login node; nodes may have it where that does not."""
    subject, name = "container runtime", cluster.container_runtime.value
    if name not in answers.programs:
        return Checked(subject=subject, left_out="jobs run without containers" if name == "none" else "nobody answers")
    if answers.programs[name]:
        return Checked(subject=subject, note=name)
    what = f"{name} is not on the login node"
    fix = "see that the nodes have it, or set container_runtime to what is there"
    where = f"container_runtime of cluster {cluster.name!r}"
    return Checked(subject=subject, findings=(warning(what, where=where, fix=fix),))
