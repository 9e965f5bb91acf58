"""Section ``logger``: where metrics go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from skills_pipe.training.config.schema.declare import Key


@dataclass(frozen=True, kw_only=True)
class WandbConfig:
    """Weights & Biases."""

    project: Annotated[str, Key("Project of the run.")]
    name: Annotated[str | None, Key("Name of the run; null: chosen by the service.", absent=None)]
    id: Annotated[
        str | None,
        Key("Id of the run; null: chosen once and kept in log_dir, so that jobs go on with it.", absent=None),
    ]
    group: Annotated[str | None, Key("Group of the run.", absent=None)]
    entity: Annotated[str | None, Key("User or team that owns the project.", absent=None)]
    tags: Annotated[tuple[str, ...], Key("Tags of the run.", absent=())]
    notes: Annotated[str | None, Key("Longer description of the run.", absent=None)]
    mode: Annotated[str | None, Key("online, offline or disabled; null: as the environment says.", absent=None)]
    optional: Annotated[bool, Key("Train without it where it is not installed or knows no key.", absent=False)]


@dataclass(frozen=True, kw_only=True)
class SwanlabConfig:
    """SwanLab."""

    project: Annotated[str, Key("Project of the run.")]
    name: Annotated[str | None, Key("Name of the run.", absent=None)]
    id: Annotated[str | None, Key("Id of the run, 21 lower-case letters and digits; null: chosen once.", absent=None)]
    mode: Annotated[str | None, Key("online, local, offline or disabled; null: as the environment says.", absent=None)]


@dataclass(frozen=True, kw_only=True)
class TensorboardConfig:
    """TensorBoard."""

    log_dir: Annotated[str, Key("Folder of the event files.")]


@dataclass(frozen=True, kw_only=True)
class MlflowConfig:
    """MLflow."""

    experiment_name: Annotated[str, Key("Experiment of the run.")]
    run_name: Annotated[str | None, Key("Name of the run.", absent=None)]
    run_id: Annotated[str | None, Key("Id of a run to continue; null: that of the jobs before.", absent=None)]
    tracking_uri: Annotated[str | None, Key("Address of the server; null: as the environment says.", absent=None)]
    artifact_location: Annotated[str | None, Key("Where artifacts are stored.", absent=None)]


@dataclass(frozen=True, kw_only=True)
class GpuMonitoringConfig:
    """How often nodes are measured."""

    collection_interval: Annotated[float, Key("Seconds between two measurements.", above=0)]
    flush_interval: Annotated[float, Key("Seconds between two gatherings from all nodes, after a step.", above=0)]


@dataclass(frozen=True, kw_only=True)
class LoggerConfig:
    """Where metrics go; {log_dir}/metrics.jsonl is always written."""

    log_dir: Annotated[str, Key("Folder of metrics.jsonl, loss.png and the logs of the services below.")]
    wandb_enabled: Annotated[bool, Key("Log to Weights & Biases.", also=("report_to",))]
    tensorboard_enabled: Annotated[bool, Key("Log to TensorBoard.")]
    mlflow_enabled: Annotated[bool, Key("Log to MLflow.")]
    swanlab_enabled: Annotated[bool, Key("Log to SwanLab.")]
    monitor_gpus: Annotated[bool, Key("Log memory of the nodes, use and memory of their GPUs, by time.")]
    num_val_samples_to_print: Annotated[int, Key("Validation samples to show on the terminal.", minimum=0)]
    profile_step_range: Annotated[
        str | None,
        Key('Steps to profile, "FIRST:END" without END, counted from 1, such as "3:5"; null: none.', absent=None),
    ]
    profiler: Annotated[
        Literal["torch", "nsys"],
        Key(
            "torch writes a trace of each rank to log_dir; nsys marks the steps for a program around the job.",
            absent="torch",
        ),
    ]
    wandb: Annotated[WandbConfig, Key("Weights & Biases.")]
    swanlab: Annotated[SwanlabConfig, Key("SwanLab.")]
    tensorboard: Annotated[TensorboardConfig, Key("TensorBoard.")]
    mlflow: Annotated[MlflowConfig, Key("MLflow.")]
    gpu_monitoring: Annotated[GpuMonitoringConfig, Key("How often nodes are measured.")]
