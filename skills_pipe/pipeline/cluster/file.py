"""Reading cluster configuration files: search order, schema, and every mistake in a file told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from skills_pipe.errors import ClusterConfigError, UserError, did_you_mean
from skills_pipe.pipeline.cluster.config import (
    ENV_CONFIG_DIR,
    ClusterConfig,
    ContainerRuntime,
    EnvVar,
    ExecutorKind,
    SshTunnel,
    default_job_dir,
)
from skills_pipe.pipeline.cluster.slurm_time import parse_time
from skills_pipe.pipeline.plan import Mount

THIS_MACHINE = ("local", "none")
"""Names that mean this machine when no file has them."""

_KEYS = (
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
    "num_workers",
    "skip_hf_home_check",
    "sbatch",
    "nemo_run",
)
_TUNNEL_KEYS = ("host", "job_dir", "user", "identity", "shell", "pre_command")
_NAME = re.compile(r"[A-Za-z_]\w*")
_BRACES = re.compile(r"\{(\w+)\}")
_DOLLAR = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Enum)


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
        value = _parse_yaml(path.read_text())
    except FileNotFoundError as error:
        raise ClusterConfigError("there is no such file", where=str(path), fix="correct the path") from error
    except yaml.YAMLError as error:
        raise ClusterConfigError(f"not valid YAML: {' '.join(str(error).split())}", where=str(path)) from error
    if not isinstance(value, Mapping):
        raise ClusterConfigError("a cluster configuration is a mapping of keys to values", where=str(path))
    return read_mapping(value, name=path.stem, where=str(path))


def read_mapping(value: Mapping[str, Any], *, name: str, where: str) -> ClusterConfig:
    """The configuration in a mapping; ``where`` names its source in messages."""
    reader = _Reader(value)
    executor = reader.choice("executor", ExecutorKind, default=None, aliases={"none": "local"})
    tunnel = _read_tunnel(reader)
    reader.unknown(_KEYS)
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
        sbatch=reader.texts("sbatch"),
        nemo_run=dict(reader.section("nemo_run")),
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


def expand_braces(text: str) -> str:
    """``text`` with every ``{NAME}`` replaced by the environment variable of that name."""
    return _BRACES.sub(lambda match: _from_environment(match.group(1), text), text)


class _Reader:
    """Takes typed values out of a mapping and collects what is wrong with them."""

    def __init__(self, value: Mapping[str, Any], prefix: str = "") -> None:
        self.problems: list[str] = []
        self._value = value
        self._prefix = prefix

    def unknown(self, known: tuple[str, ...]) -> None:
        for key in self._value:
            if key not in known:
                advice = did_you_mean(str(key), known)
                self.problem(str(key), "is not a key of cluster configurations" + (f", {advice}" if advice else ""))

    def problem(self, key: str, what: str) -> None:
        self.problems.append(f"{self._prefix}{key} {what}")

    def attempt(self, key: str, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except UserError as error:
            self.problem(key, f"is wrong: {error}")
            return None

    def section(self, key: str) -> Mapping[str, Any]:
        value = self._value.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.problem(key, "must be a mapping of names to values")
            return {}
        return value

    def text(self, key: str) -> str | None:
        value = self._value.get(key)
        if value is None:
            return None
        if isinstance(value, (Mapping, list)):
            self.problem(key, "must be a single value")
            return None
        return str(value)

    def path(self, key: str) -> str | None:
        text = self.text(key)
        expanded = self.attempt(key, lambda: expand_braces(text)) if text else None
        if expanded and not expanded.startswith("/"):
            self.problem(key, f"must be an absolute path, not {expanded!r}")
        return expanded

    def texts(self, key: str) -> dict[str, str]:
        return {str(name): str(item) for name, item in self.section(key).items()}

    def flag(self, key: str) -> bool:
        value = self._value.get(key)
        if value is not None and not isinstance(value, bool):
            self.problem(key, f"must be true or false, not {value!r}")
        return value is True

    def count(self, key: str, *, default: int) -> int:
        value = self._value.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self.problem(key, f"must be a whole number above 0, not {value!r}")
            return default
        return value

    def choice(self, key: str, kind: type[_E], *, default: _E | None, aliases: Mapping[str, str]) -> _E | None:
        text = self.text(key)
        if text is None:
            return default
        try:
            return kind(aliases.get(text, text))
        except ValueError:
            choices = [member.value for member in kind]
            advice = did_you_mean(text, choices)
            self.problem(key, f"must be one of {', '.join(choices)}, not {text!r}" + (f", {advice}" if advice else ""))
            return default

    def each(self, key: str, read: Callable[[str], _T]) -> tuple[_T, ...]:
        value = self._value.get(key)
        if value is None:
            return ()
        if not isinstance(value, list):
            self.problem(key, "must be a list")
            return ()
        items = (self.attempt(key, lambda item=item: read(str(item))) for item in value)  # type: ignore[misc]
        return tuple(item for item in items if item is not None)

    def time(self, key: str, value: object) -> int | None:
        return None if value is None else self.attempt(key, lambda: parse_time(str(value)))


def _parse_yaml(text: str) -> object:
    """YAML in which ``10:00`` stays text: YAML 1.1 takes it for the number 600, in base 60."""
    import yaml

    whole_number = "tag:yaml.org,2002:int"

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012, it is a class attribute in PyYAML too
            first: [resolver for resolver in resolvers if resolver[0] != whole_number]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver(whole_number, re.compile(r"[-+]?\d+$"), list("-+0123456789"))
    return yaml.load(text, Loader)


def _read_tunnel(reader: _Reader) -> SshTunnel | None:
    section = reader.section("ssh_tunnel")
    if not section:
        return None
    inner = _Reader(section, prefix="ssh_tunnel.")
    inner.unknown(_TUNNEL_KEYS)
    texts = {key: inner.text(key) for key in _TUNNEL_KEYS}
    values = {key: inner.attempt(key, lambda text=text: expand_braces(text)) for key, text in texts.items() if text}  # type: ignore[misc]
    for key in ("host", "job_dir"):
        if not texts[key]:
            inner.problem(key, "is missing")
    inner.path("job_dir")
    reader.problems += inner.problems
    return SshTunnel(
        host=values.get("host") or "",
        job_dir=values.get("job_dir") or "",
        user=values.get("user") or os.environ.get("USER"),
        identity=values.get("identity"),
        shell=values.get("shell"),
        pre_command=values.get("pre_command"),
    )


def _job_dir(reader: _Reader, executor: ExecutorKind | None, tunnel: SshTunnel | None) -> str:
    if executor is None:
        reader.problem("executor", "is missing: set it to slurm, or to local for this machine")
    own = reader.path("job_dir")
    if tunnel is not None and executor is ExecutorKind.SLURM:
        return tunnel.job_dir
    if own is None and executor in (ExecutorKind.SLURM, ExecutorKind.NEMO_RUN):
        reader.problem("job_dir", "is missing: set it, or ssh_tunnel.job_dir, to a folder that all nodes see")
    return own or default_job_dir()


def _runtime(reader: _Reader, executor: ExecutorKind | None) -> ContainerRuntime:
    has_images = executor in (ExecutorKind.SLURM, ExecutorKind.NEMO_RUN) and bool(reader.section("containers"))
    default = ContainerRuntime.PYXIS if has_images else ContainerRuntime.NONE
    return reader.choice("container_runtime", ContainerRuntime, default=default, aliases={}) or default


def _time_limits(reader: _Reader) -> dict[str, int]:
    limits = {str(name): reader.time(f"timeouts.{name}", value) for name, value in reader.section("timeouts").items()}
    return {name: seconds for name, seconds in limits.items() if seconds is not None}


def _variable(text: str, *, required: bool) -> EnvVar:
    name, equals, value = text.partition("=")
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is not the name of a variable", fix="write NAME or NAME=VALUE")
    if not equals:
        return EnvVar(name=name, required=required)
    expanded = _DOLLAR.sub(lambda match: _from_environment(match.group(1) or match.group(2), name), value)
    return EnvVar(name=name, value=expanded, required=required)


def _from_environment(name: str, where: str) -> str:
    if name not in os.environ:
        raise UserError(f"{name} is not set in the environment", where=where, fix=f"export {name}=... first")
    return os.environ[name]


def _tidy(path: str) -> str:
    return path.rstrip("/") or "/"
