"""Services that track experiments: TensorBoard, Weights & Biases, MLflow, SwanLab. Imported only when enabled."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.schema.logger import LoggerConfig


class Tracker(Protocol):
    """A service that draws curves."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the values of a step."""

    def close(self) -> None:
        """Flush and end the run."""


def open_trackers(config: LoggerConfig, *, resumed_step: int, run_config: Mapping[str, Any]) -> list[Tracker]:
    """The services that ``config`` enables, started.

    Raises:
        ConfigError: packages are missing; all of them are named.
    """
    chosen = [
        (config.tensorboard_enabled, "tensorboard", "torch.utils.tensorboard"),
        (config.wandb_enabled, "wandb", "wandb"),
        (config.mlflow_enabled, "mlflow", "mlflow"),
        (config.swanlab_enabled, "swanlab", "swanlab"),
    ]
    modules = {name: _import(module) for enabled, name, module in chosen if enabled}
    missing = [name for name, module in modules.items() if module is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} not installed",
            where=", ".join(f"logger.{name}_enabled=true" for name in missing),
            fix=f"pip install {' '.join(missing)}, or set the key to false",
        )
    openers = {
        "tensorboard": lambda module: _TensorBoard(module, config, resumed_step),
        "wandb": lambda module: _Wandb(module, config, run_config),
        "mlflow": lambda module: _Mlflow(module, config),
        "swanlab": lambda module: _Swanlab(module, config, run_config),
    }
    return [openers[name](module) for name, module in modules.items() if module is not None]


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


class _TensorBoard:
    def __init__(self, module: ModuleType, config: LoggerConfig, resumed_step: int) -> None:
        folder = config.tensorboard.log_dir
        # TensorBoard hides what an earlier process logged from purge_step on.
        self._writer = module.SummaryWriter(folder, purge_step=resumed_step + 1 if resumed_step else None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, module: ModuleType, config: LoggerConfig, run_config: Mapping[str, Any]) -> None:
        settings = config.wandb
        folder = Path(config.log_dir) / "wandb"
        folder.mkdir(parents=True, exist_ok=True)
        self._run = module.init(
            project=settings.project,
            name=settings.name,
            id=settings.id,
            group=settings.group,
            entity=settings.entity,
            tags=list(settings.tags) or None,
            notes=settings.notes,
            mode=settings.mode,
            dir=str(folder),
            config=dict(run_config),
            resume="allow" if settings.id else None,
        )
        # Against a step of our own: the service's step only grows, and a resumed run repeats some.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    def __init__(self, module: ModuleType, config: LoggerConfig) -> None:
        settings = config.mlflow
        self._mlflow = module
        if settings.tracking_uri:
            module.set_tracking_uri(settings.tracking_uri)
        if module.get_experiment_by_name(settings.experiment_name) is None:
            module.create_experiment(settings.experiment_name, artifact_location=settings.artifact_location)
        module.set_experiment(settings.experiment_name)
        module.start_run(run_id=settings.run_id, run_name=settings.run_name)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()


class _Swanlab:
    def __init__(self, module: ModuleType, config: LoggerConfig, run_config: Mapping[str, Any]) -> None:
        settings = config.swanlab
        self._swanlab = module
        folder = str(Path(config.log_dir) / "swanlab")
        module.init(project=settings.project, experiment_name=settings.name, logdir=folder, config=dict(run_config))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._swanlab.log(dict(values), step=step)

    def close(self) -> None:
        self._swanlab.finish()
