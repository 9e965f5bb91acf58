"""Services that track experiments: TensorBoard, Weights & Biases, MLflow, SwanLab. Imported only when enabled."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from skills_pipe.artifacts.metrics import NODES_TIME
from skills_pipe.errors import ConfigError
from skills_pipe.training.config.schema.logger import LoggerConfig, WandbConfig
from skills_pipe.training.monitoring.mlflow_tracker import MlflowTracker, said
from skills_pipe.training.monitoring.run_ids import RunIds

_TITLES = {"tensorboard": "TensorBoard", "wandb": "Weights & Biases", "mlflow": "MLflow", "swanlab": "SwanLab"}


class Tracker(Protocol):
    """A service that draws curves."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of a step."""

    def log_nodes(self, seconds: int, values: Mapping[str, float]) -> None:
        """Record what nodes use, so many seconds after the run began."""

    def close(self, *, failed: bool = False) -> None:
        """Flush and end the run, as one that failed or as one that may go on in the next job."""


class Trackers:
    """Services that get the same values; one that fails ends no training, and is told once until it works again.

    Args:
        each: by the name that people know them by.
    """

    def __init__(self, each: Mapping[str, Tracker]) -> None:
        self._each: dict[str, Tracker] = dict(each)
        self._lost: set[str] = set()

    def __iter__(self) -> Iterator[Tracker]:
        return iter(self._each.values())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of a step everywhere."""
        for name, tracker in self._each.items():
            self._attempt(name, lambda to=tracker: to.log(step, values), f"from step {step} on")

    def log_nodes(self, seconds: int, values: Mapping[str, float]) -> None:
        """Record what nodes use everywhere."""
        for name, tracker in self._each.items():
            self._attempt(name, lambda to=tracker: to.log_nodes(seconds, values), f"from second {seconds} on")

    def close(self, *, failed: bool = False) -> None:
        """Flush and end every run."""
        for name, tracker in self._each.items():
            self._attempt(name, lambda to=tracker: to.close(failed=failed), "at the end")

    def _attempt(self, name: str, action: Callable[[], None], when: str) -> None:
        try:
            action()
        except Exception as error:  # whatever their packages raise: the numbers are in metrics.jsonl as well
            if name not in self._lost:
                print(f"{name} takes nothing {when}: {said(error)}", flush=True)
            self._lost.add(name)
        else:
            self._lost.discard(name)


@dataclass(frozen=True, kw_only=True)
class _Start:
    """What a service is started with: its package, the settings, and the run that goes on."""

    module: ModuleType
    config: LoggerConfig
    resumed_step: int
    run_config: Mapping[str, Any]

    @property
    def ids(self) -> RunIds:
        """Of the run at the services."""
        return RunIds(Path(self.config.log_dir))


def open_trackers(config: LoggerConfig, *, resumed_step: int, run_config: Mapping[str, Any]) -> Trackers:
    """The services that ``config`` enables, started.

    Raises:
        ConfigError: packages are missing; all of them are named.
    """
    services: list[tuple[bool, str, str, Callable[[_Start], Tracker]]] = [
        (config.tensorboard_enabled, "tensorboard", "torch.utils.tensorboard", _TensorBoard),
        (config.wandb_enabled and not _goes_without(config.wandb), "wandb", "wandb", _Wandb),
        (config.mlflow_enabled, "mlflow", "mlflow", _mlflow),
        (config.swanlab_enabled, "swanlab", "swanlab", _Swanlab),
    ]
    modules = {name: _import(module) for enabled, name, module, _ in services if enabled}
    missing = [name for name, module in modules.items() if module is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} not installed",
            where=", ".join(f"logger.{name}_enabled=true" for name in missing),
            fix=f"pip install {' '.join(missing)}, or set the key to false",
        )
    return Trackers(
        {
            _TITLES[name]: tracker(
                _Start(module=module, config=config, resumed_step=resumed_step, run_config=run_config)
            )
            for _, name, _, tracker in services
            if (module := modules.get(name)) is not None
        }
    )


def _goes_without(wandb: WandbConfig) -> bool:
    """Whether Weights & Biases is left out, which is said: it may be, and would only fail."""
    if not wandb.optional:
        return False
    if _import("wandb") is None:
        why = "wandb is not installed"
    elif not (os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_MODE") or wandb.mode or _has_login()):
        why = "there is no key for it: set WANDB_API_KEY"
    else:
        return False
    print(f"nothing is sent to Weights & Biases: {why}", flush=True)
    return True


def _has_login() -> bool:
    """Whether ``wandb login`` has left a key on this machine."""
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    return path.is_file() and "wandb" in path.read_text(errors="replace")


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


class _TensorBoard:
    def __init__(self, start: _Start) -> None:
        # TensorBoard hides what an earlier process logged from purge_step on; step 0 is the validation at the start.
        purge = start.resumed_step + 1 if start.resumed_step else 0
        self._writer_in = start.module.SummaryWriter
        self._writer = self._writer_in(start.config.tensorboard.log_dir, purge_step=purge)
        self._nodes: Any = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def log_nodes(self, seconds: int, values: Mapping[str, float]) -> None:
        if self._nodes is None:
            # In a folder of their own: what is hidden from a step on would be so from a second on there.
            self._nodes = self._writer_in(f"{self._writer.log_dir}/nodes")
        for name, value in values.items():
            self._nodes.add_scalar(name, value, seconds)

    def close(self, *, failed: bool = False) -> None:
        self._writer.close()
        if self._nodes is not None:
            self._nodes.close()


class _Wandb:
    def __init__(self, start: _Start) -> None:
        settings = start.config.wandb
        folder = Path(start.config.log_dir) / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        init, unusable = start.module.init, start.module.errors.UsageError
        try:
            self._run = init(
                project=settings.project,
                name=settings.name,
                id=start.ids.of("wandb", settings.id),
                group=settings.group,
                entity=settings.entity,
                tags=list(settings.tags) or None,
                notes=settings.notes,
                mode=settings.mode,
                dir=str(folder),
                config=dict(start.run_config),
                resume="allow",
            )
        except unusable as error:
            raise ConfigError(
                f"Weights & Biases cannot be used: {said(error)}",
                where="logger.wandb_enabled=true",
                fix="set WANDB_API_KEY where nobody is logged in, or WANDB_MODE=offline, or the key to false",
            ) from error
        # Against a step of our own: the service's step only grows, and a resumed run repeats some.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._of_nodes: set[str] = set()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def log_nodes(self, seconds: int, values: Mapping[str, float]) -> None:
        # By their names: which of two patterns that fit would count is not told.
        for name in values.keys() - self._of_nodes:
            self._run.define_metric(name, step_metric=NODES_TIME)
        self._of_nodes |= values.keys()
        self._run.log({NODES_TIME: seconds, **values})

    def close(self, *, failed: bool = False) -> None:
        self._run.finish(exit_code=int(failed))


def _mlflow(start: _Start) -> Tracker:
    return MlflowTracker(start.module, start.config.mlflow, start.ids)


class _Swanlab:
    def __init__(self, start: _Start) -> None:
        settings = start.config.swanlab
        self._swanlab = start.module
        self._swanlab.init(
            project=settings.project,
            experiment_name=settings.name,
            id=start.ids.of("swanlab", settings.id),
            resume="allow",
            mode=settings.mode,
            logdir=str(Path(start.config.log_dir) / "swanlab"),
            config=dict(start.run_config),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._swanlab.log(dict(values), step=step)

    def log_nodes(self, seconds: int, values: Mapping[str, float]) -> None:
        self.log(seconds, values)

    def close(self, *, failed: bool = False) -> None:
        if failed:
            self._swanlab.finish("crashed", error="the log of the job says why")
        else:
            self._swanlab.finish()
