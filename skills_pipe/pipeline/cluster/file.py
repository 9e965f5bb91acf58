"""Reading cluster configuration files: search order, schema, and every mistake in a file told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skills_pipe.errors import ClusterConfigError, UserError, did_you_mean
from skills_pipe.pipeline.cluster.config import (
    ENV_CONFIG_DIR,
    ChainKind,
    ClusterConfig,
    ContainerRuntime,
    EnvVar,
    ExecutorKind,
    RankLauncher,
    SshTunnel,
    default_job_dir,
)
from skills_pipe.pipeline.cluster.notify import read_notify
from skills_pipe.pipeline.cluster.reader import Reader, expand_braces, from_environment
from skills_pipe.pipeline.cluster.yaml_lines import parse_yaml
from skills_pipe.pipeline.plan import Mount

THIS_MACHINE = ("local", "none")
"""Names that mean this machine when no file has them."""

KEYS = (
    "executor",
    "container_runtime",
    "containers",
    "mounts",
    "env_vars",
    "required_env_vars",
    "ssh_tunnel",
    "job_dir",
    "account",
    "partition",
    "cpu_partition",
    "job_name_prefix",
    "default_timeout",
    "timeouts",
    "dependency_type",
    "disable_gpus_per_node",
    "mail_type",
    "mail_user",
    "notify",
    "num_workers",
    "skip_hf_home_check",
    "sbatch",
    "chain",
    "rank_launcher",
    "kill_on_invalid_dep",
    "nemo_run",
    "qos",
    "gpu_memory_gb",
)
"""Every key of a configuration file."""
TUNNEL_KEYS = ("host", "job_dir", "user", "identity", "shell", "pre_command")
_NAME = re.compile(r"[A-Za-z_]\w*")
_DOLLAR = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def find_file(name: str, config_dir: str | None) -> Path | None:
    """The file of a cluster configuration; None when the name means this machine and no file has it.

    Raises:
        ClusterConfigError: there is no such file.
    """
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    folder = Path(config_dir or os.environ.get(ENV_CONFIG_DIR) or "cluster_configs")
    path = folder / f"{name}.yaml"
    if path.is_file():
        return path
    if name in THIS_MACHINE:
        return None
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    advice = did_you_mean(name, [*known, *THIS_MACHINE])
    listing = f"it has {', '.join(known)}" if known else "there are no configurations"
    raise ClusterConfigError(
        f"no cluster configuration {name!r} in {folder} ({listing})",
        where="--cluster",
        fix=advice or "write one after cluster_configs/example-slurm.yaml, or set --config_dir",
    )


def read_file(path: Path) -> ClusterConfig:
    """The configuration in a YAML file."""
    import yaml

    try:
        value, lines = parse_yaml(path.read_text())
    except FileNotFoundError as error:
        raise ClusterConfigError("there is no such file", where=str(path), fix="correct the path") from error
    except yaml.YAMLError as error:
        raise ClusterConfigError(f"not valid YAML: {' '.join(str(error).split())}", where=str(path)) from error
    if not isinstance(value, Mapping):
        raise ClusterConfigError("a cluster configuration is a mapping of keys to values", where=str(path))
    return read_mapping(value, name=path.stem, where=str(path), lines=lines)


def read_mapping(
    value: Mapping[str, Any], *, name: str, where: str, lines: Mapping[str, int] | None = None
) -> ClusterConfig:
    """The configuration in a mapping.

    Args:
        value: what a file may hold.
        name: of the configuration.
        where: names the source in messages.
        lines: dotted key -> line in the source, for messages.

    Raises:
        ClusterConfigError: keys or values are wrong; all of them are told.
    """
    reader = Reader(value, lines=lines)
    executor = reader.choice("executor", ExecutorKind, default=None, aliases={"none": "local"})
    tunnel = _read_tunnel(reader)
    reader.unknown(KEYS)
    config = ClusterConfig(
        name=name,
        executor=executor or ExecutorKind.LOCAL,
        job_dir=_job_dir(reader, executor, tunnel),
        container_runtime=_runtime(reader, executor),
        containers=reader.texts("containers"),
        mounts=reader.each("mounts", parse_mount),
        env=(
            *reader.each("env_vars", lambda text: _variable(text, required=False)),
            *reader.each("required_env_vars", lambda text: _variable(text, required=True)),
        ),
        ssh_tunnel=tunnel,
        account=reader.text("account"),
        partition=reader.text("partition"),
        cpu_partition=reader.text("cpu_partition"),
        job_name_prefix=reader.text("job_name_prefix") or "",
        default_time_limit=reader.time("default_timeout", value.get("default_timeout")),
        time_limits=_time_limits(reader),
        dependency_type=reader.text("dependency_type"),
        disable_gpus_per_node=reader.flag("disable_gpus_per_node"),
        mail_type=reader.text("mail_type"),
        mail_user=reader.text("mail_user"),
        num_workers=reader.count("num_workers", default=4),
        skip_hf_home_check=reader.flag("skip_hf_home_check"),
        sbatch=_sbatch(reader),
        chain=reader.choice("chain", ChainKind, default=None, aliases={}) or ChainKind.SEGMENTS,
        rank_launcher=reader.choice("rank_launcher", RankLauncher, default=None, aliases={}) or RankLauncher.SRUN,
        kill_on_invalid_dep=reader.flag("kill_on_invalid_dep", default=True),
        nemo_run=dict(reader.section("nemo_run")),
        qos=reader.text("qos"),
        gpu_memory_gb=reader.number("gpu_memory_gb"),
        notify=read_notify(reader),
        working_dir=str(Path.cwd()) if executor in (None, ExecutorKind.LOCAL) else None,
    )
    if reader.problems:
        raise ClusterConfigError("; ".join(reader.problems), where=where)
    return config


def parse_mount(text: str) -> Mount:
    """A mount written as ``source:target`` or ``source:target:ro``; ``{NAME}`` stands for an environment variable.

    Raises:
        UserError: it has another form, or a variable is not set.
    """
    parts = expand_braces(text).split(":")
    mode = parts[2] if len(parts) == 3 else "rw"
    if len(parts) not in (2, 3) or mode not in ("ro", "rw") or not all(part.startswith("/") for part in parts[:2]):
        raise UserError(
            f"mount {text!r} is not understood",
            fix="write it as /folder/on/cluster:/folder/in/container, with :ro at the end for a read-only one",
        )
    return Mount(source=_tidy(parts[0]), target=_tidy(parts[1]), read_only=mode == "ro")


def _read_tunnel(reader: Reader) -> SshTunnel | None:
    if not reader.section("ssh_tunnel"):
        return None
    inner = reader.inner("ssh_tunnel")
    inner.unknown(TUNNEL_KEYS)
    texts = {key: inner.text(key) for key in TUNNEL_KEYS}
    values = {key: inner.attempt(key, lambda text=text: expand_braces(text)) for key, text in texts.items() if text}  # type: ignore[misc]
    for key in ("host", "job_dir"):
        if not texts[key]:
            inner.problem(key, "is missing")
    inner.path("job_dir")
    return SshTunnel(
        host=values.get("host") or "",
        job_dir=values.get("job_dir") or "",
        user=values.get("user"),
        identity=values.get("identity"),
        shell=values.get("shell"),
        pre_command=values.get("pre_command"),
    )


def _job_dir(reader: Reader, executor: ExecutorKind | None, tunnel: SshTunnel | None) -> str:
    if executor is None:
        reader.problem("executor", "is missing: set it to slurm, or to local for this machine")
    own = reader.path("job_dir")
    if tunnel is not None and executor is ExecutorKind.SLURM:
        return tunnel.job_dir
    if own is None and executor in (ExecutorKind.SLURM, ExecutorKind.NEMO_RUN):
        reader.problem("job_dir", "is missing: set it, or ssh_tunnel.job_dir, to a folder that all nodes see")
    return own or default_job_dir()


def _runtime(reader: Reader, executor: ExecutorKind | None) -> ContainerRuntime:
    has_images = executor in (ExecutorKind.SLURM, ExecutorKind.NEMO_RUN) and bool(reader.section("containers"))
    default = ContainerRuntime.PYXIS if has_images else ContainerRuntime.NONE
    return reader.choice("container_runtime", ContainerRuntime, default=default, aliases={}) or default


def _time_limits(reader: Reader) -> dict[str, int]:
    limits = {str(name): reader.time(f"timeouts.{name}", value) for name, value in reader.section("timeouts").items()}
    return {name: seconds for name, seconds in limits.items() if seconds is not None}


def _sbatch(reader: Reader) -> dict[str, str]:
    """Keys of sbatch; but what jobs get of an environment is said on its command line, which wins."""
    keys = reader.texts("sbatch")
    if "export" in keys:
        reader.problem("sbatch.export", "has no effect: write the variables of jobs into env_vars")
    return keys


def _variable(text: str, *, required: bool) -> EnvVar:
    name, equals, value = text.partition("=")
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is not the name of a variable", fix="write NAME or NAME=VALUE")
    if not equals:
        return EnvVar(name=name, required=required)
    expanded = _DOLLAR.sub(lambda match: from_environment(match.group(1) or match.group(2), name), value)
    return EnvVar(name=name, value=expanded, required=required)


def _tidy(path: str) -> str:
    return path.rstrip("/") or "/"
