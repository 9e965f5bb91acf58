"""Where the jobs of a cluster run: their paths here, their environment, and the script that suits the place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.cluster.environment import public_environment
from skills_pipe.pipeline.cluster.paths import to_cluster
from skills_pipe.pipeline.plan import Job, Plan
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.setting import Setting, code_dir


def locator(cluster: ClusterConfig, plan: Plan) -> Callable[[str], Path]:
    """A function from paths as jobs see them to paths here; a relative one (or a hub id) is left as it is."""
    if cluster.is_local:
        return lambda path: Path(path).absolute()
    if cluster.container_runtime is ContainerRuntime.NONE:
        return Path
    return lambda path: Path(to_cluster(path, plan.mounts) if path.startswith("/") else path)


def render(job: Job, plan: Plan, cluster: ClusterConfig, run: Run, code: str | None = None) -> str:
    """The script of a job, byte for byte as it is submitted.

    Args:
        code: folder of the cluster with the code of the jobs; None for that of the installed package.
    """
    if cluster.executor is ExecutorKind.NEMO_RUN:
        return _for_nemo_run(job, plan, cluster, run, code or str(code_dir()))
    if cluster.is_local:
        return _for_this_machine(job, plan, cluster, run)
    # Imported here, as those of the others: a launch needs the scripts of one place.
    from skills_pipe.pipeline.scripts.sbatch import render_sbatch

    return render_sbatch(job, plan, cluster, run, code or str(code_dir()))


def _for_nemo_run(job: Job, plan: Plan, cluster: ClusterConfig, run: Run, code: str) -> str:
    from skills_pipe.pipeline.executors.nemo_run.target import stays_until_the_end
    from skills_pipe.pipeline.scripts.nemo_run import render_task

    setting = Setting(job=job, plan=plan, cluster=cluster, run=run, code=code)
    return render_task(setting, queued=not stays_until_the_end(cluster))


def _for_this_machine(job: Job, plan: Plan, cluster: ClusterConfig, run: Run) -> str:
    from skills_pipe.pipeline.executors.machine import Machine
    from skills_pipe.pipeline.scripts.local import render_local
    from skills_pipe.pipeline.scripts.render import Surroundings, threads_per_process

    place = Surroundings(
        run_name=str(run),
        run_dir=str(run.folder),
        working_dir=cluster.working_dir or str(Path.cwd()),
        env=tuple(public_environment(cluster).items()),
        python_bin=str(Path(sys.executable).parent),
        run_number=run.number,
    )
    return render_local(job, place, threads=threads_per_process(plan, job, cores=Machine.here().cores))
