"""Cluster configurations: where jobs run, in which containers, with which mounts and environment.

Values of environment variables are looked up when a run is submitted, never before: a configuration can be printed
and stored without giving a secret away.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.cluster.notify import Notify
from skills_pipe.pipeline.cluster.slurm_time import format_time
from skills_pipe.pipeline.plan import Mount

ENV_CONFIG = "NEMO_SKILLS_CONFIG"
"""Path of the cluster configuration that is used when no ``--cluster`` is given."""
ENV_CONFIG_DIR = "NEMO_SKILLS_CONFIG_DIR"
"""Folder in which cluster configurations are looked for."""
ENV_JOB_DIR = "SKILLS_PIPE_JOB_DIR"
"""Folder for the records of runs on this machine."""

ALWAYS_FORWARDED = (
    "WANDB_API_KEY",
    "NVIDIA_API_KEY",
    "AZURE_OPENAI_API_KEY",
    "OPENAI_API_KEY",
    "HF_TOKEN",
    "NGC_API_KEY",
)
"""Keys that jobs get whenever they are set where the run is submitted."""


class ExecutorKind(str, Enum):
    """Who runs the jobs."""

    LOCAL = "local"
    """Processes on this machine."""
    SLURM = "slurm"
    """A Slurm cluster, here or through ``ssh_tunnel``."""
    NEMO_RUN = "nemo_run"
    """An executor of nemo-run, as the section ``nemo_run`` says."""


class RankLauncher(str, Enum):
    """What starts the ranks of a training job on Slurm."""

    SRUN = "srun"
    """srun itself, one task for each rank."""
    TORCHRUN = "torchrun"
    """torchrun, in one task on each node: for sites whose tasks see one GPU only, or share a node badly."""


class ChainKind(str, Enum):
    """How the time-limited jobs of one training are queued."""

    SEGMENTS = "segments"
    """As many jobs as there may be starts, each waiting for the end of those before it."""
    REQUEUE = "requeue"
    """One job that queues itself again until the work is done; for sites that do not take ``afternotok``."""


class ContainerRuntime(str, Enum):
    """What starts the containers of a Slurm job."""

    PYXIS = "pyxis"
    """The ``--container-*`` flags of srun, by NVIDIA's plugin."""
    APPTAINER = "apptainer"
    """``apptainer exec``, once for each task."""
    CHARLIECLOUD = "charliecloud"
    """``ch-run``, once for each task; its mounts can all be written."""
    DOCKER = "docker"
    """``docker run``, once for each task, by the daemon of the node."""
    PODMAN = "podman"
    """``podman run``, once for each task."""
    NONE = "none"
    """No containers: jobs see the cluster's own files."""


@dataclass(frozen=True, kw_only=True)
class EnvVar:
    """A variable that jobs get: with ``value`` as the configuration gives it, else as it is set at submission.

    Attributes:
        required: submitting without a value is an error.
    """

    name: str
    value: str | None = field(default=None, repr=False)
    required: bool = False

    @property
    def secret(self) -> bool:
        """Whether the value must stay out of scripts, records and logs, judged by the name."""
        return self.name.upper().endswith(("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIALS"))


@dataclass(frozen=True, kw_only=True)
class SshTunnel:
    """How to reach the login node of a cluster; ``job_dir`` is the folder there for the records of runs."""

    host: str
    job_dir: str
    user: str | None = None
    identity: str | None = None
    shell: str | None = None
    pre_command: str | None = None


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """One place to run jobs.

    Attributes:
        name: name of the configuration file without ``.yaml``, ``local`` for this machine.
        job_dir: folder on the cluster for the records of runs.
        containers: key (``nemo-rl``, ``nemo-skills``, ``vllm``, ...) -> image.
        env: variables for all jobs, in the order of the file.
        partition, cpu_partition: of GPU jobs and of jobs without a GPU; None for Slurm's default.
        time_limits: partition -> seconds; ``default_time_limit`` for all others, None for no limit.
        disable_gpus_per_node: leave ``--gpus-per-node`` away.
        sbatch: further ``#SBATCH`` keys, ``{"reservation": "spring", "exclude": "node7"}``.
        chain: how the jobs of one training are queued.
        rank_launcher: what starts the ranks of training jobs.
        kill_on_invalid_dep: let Slurm itself cancel jobs that can never start; else ``ns status`` does it.
        nemo_run: the section of this name: which executor of nemo-run, and its keywords.
        dependency_type: kept for configurations of NeMo-Skills; the edges of a plan say more.
        num_workers: submissions at once.
        qos: quality of service of jobs whose command names none.
        gpu_memory_gb: memory of one GPU in GiB, for the estimate of what training needs; None: as its type says.
        notify: who is told when a run has ended.
        working_dir: folder in which jobs start: the current one on this machine; None for that of the code.
    """

    name: str
    executor: ExecutorKind = ExecutorKind.LOCAL
    job_dir: str
    container_runtime: ContainerRuntime = ContainerRuntime.NONE
    containers: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    env: tuple[EnvVar, ...] = ()
    ssh_tunnel: SshTunnel | None = None
    account: str | None = None
    partition: str | None = None
    cpu_partition: str | None = None
    job_name_prefix: str = ""
    default_time_limit: int | None = None
    time_limits: Mapping[str, int] = field(default_factory=dict)
    dependency_type: str | None = None
    disable_gpus_per_node: bool = False
    mail_type: str | None = None
    mail_user: str | None = None
    num_workers: int = 4
    skip_hf_home_check: bool = False
    sbatch: Mapping[str, str] = field(default_factory=dict)
    chain: ChainKind = ChainKind.SEGMENTS
    rank_launcher: RankLauncher = RankLauncher.SRUN
    kill_on_invalid_dep: bool = True
    nemo_run: Mapping[str, object] = field(default_factory=dict)
    qos: str | None = None
    gpu_memory_gb: float | None = None
    notify: Notify | None = None
    working_dir: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether jobs are processes of this machine."""
        return self.executor is ExecutorKind.LOCAL

    def absolute(self, path: str) -> str:
        """A path as jobs see it: without trailing slashes, and on this machine absolute."""
        if self.working_dir is not None:
            path = str(Path(self.working_dir, Path(path).expanduser()))
        return posixpath.normpath(path)

    def absolute_or_id(self, name: str) -> str:
        """The same for what may be an id on the Hugging Face hub, ``org/name``: that stays as it is.

        Jobs on this machine start in the current folder, so ``folder/name`` finds a folder too.
        """
        may_be_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
        return name if may_be_id else self.absolute(name)

    @property
    def flag(self) -> str:
        """What a command line names it by, after a space; nothing for this machine, and for one given as a mapping."""
        return "" if self.is_local or self.name.startswith("(") else f" --cluster={self.name}"

    def time_limit(self, partition: str | None) -> str | None:
        """Time limit of jobs in ``partition`` as ``D-HH:MM:SS``, None where the configuration sets none."""
        seconds = self.time_limits.get(partition or "", self.default_time_limit)
        return None if seconds is None else format_time(seconds)

    def environment(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """Values of all variables for jobs, secrets included, looked up in ``environ`` (this process's own).

        Keys of :data:`ALWAYS_FORWARDED` come along when they are set. ``NGC_API_KEY`` falls back to
        ``NVIDIA_API_KEY``, and ``HF_TOKEN`` to what ``hf auth login`` has stored.

        Raises:
            ClusterConfigError: a required variable is not set.
        """
        environ = os.environ if environ is None else environ
        values = {name: environ[name] for name in ALWAYS_FORWARDED if environ.get(name)}
        stored_token = _hugging_face_token(environ)
        if stored_token:
            values.setdefault("HF_TOKEN", stored_token)
        if "NVIDIA_API_KEY" in values:
            values.setdefault("NGC_API_KEY", values["NVIDIA_API_KEY"])
        missing = []
        for variable in self.env:
            value = variable.value if variable.value is not None else environ.get(variable.name)
            if value is not None:
                values[variable.name] = value
            elif variable.required:
                missing.append(variable.name)
        if missing:
            raise ClusterConfigError(
                f"{', '.join(missing)} must be set for jobs, and is not",
                where=f"required_env_vars of cluster {self.name!r}",
                fix=f"export {missing[0]}=... before submitting",
            )
        return values


def is_secret(name: str) -> bool:
    """Whether a variable of this name must stay out of scripts, records and logs."""
    return EnvVar(name=name).secret


ClusterLike = str | Mapping[str, object] | ClusterConfig | None
"""What a user may give as a cluster: its name, a path, its contents, or nothing for this machine."""


def default_job_dir() -> str:
    """Folder for the records of runs on this machine."""
    return str(Path(os.environ.get(ENV_JOB_DIR) or "~/.skills_pipe").expanduser().absolute())


def _hugging_face_token(environ: Mapping[str, str]) -> str | None:
    home = environ.get("HF_HOME") or "~/.cache/huggingface"
    path = Path(environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
