"""Names on disk and names of environment variables that the launcher and its jobs share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

CHECKPOINTS: Final = "checkpoints"
TRAINING_LOGS: Final = "training-logs"
FINAL_HF_MODEL: Final = "final_hf_model"
EVAL_RESULTS: Final = "eval-results"

MANIFEST: Final = "manifest.json"
TRAINING_INFO: Final = "training_info.json"
METRICS: Final = "metrics.jsonl"
LOSS_PICTURE: Final = "loss.png"
TRACKED_RUNS: Final = "tracked_runs.json"
"""Ids of a training at services that track experiments."""
VALIDATION_ANSWERS: Final = "validation-answers"
"""Folder with the questions of each validation, what the model has answered, and the references."""
ADAPTER_OF_STEP: Final = "policy/adapter_config.json"
"""In a checkpoint of adapters, and in no other."""

ENV_IDENTITY: Final = "SKILLS_PIPE_IDENTITY_FILE"
"""JSON file with the identity of the stage that this job belongs to; sealed into its manifest."""
ENV_VERDICT: Final = "SKILLS_PIPE_VERDICT_FILE"
"""Where rank 0 of a training job writes its verdict."""
ENV_SAVE_NOW: Final = "SKILLS_PIPE_SAVE_NOW_FILE"
"""When this file appears, a training job saves and ends with the verdict ``continue``."""
ENV_DEADLINE: Final = "SKILLS_PIPE_DEADLINE"
"""Unix time in seconds at which this job will be killed."""
ENV_PROGRESS: Final = "SKILLS_PIPE_PROGRESS_FILE"
"""JSON file in which a job reports how far it is; replaced by rename."""
ENV_WARNINGS: Final = "SKILLS_PIPE_WARNINGS_FILE"
"""JSON file in which a job leaves what its user should read; replaced by rename."""
ENV_SERVER_PORT: Final = "SKILLS_PIPE_SERVER_PORT"
"""Port of the model server that runs in the same job; ``..._HOST`` and ``..._ADDRESS`` go with it."""
ENV_SERVER_ADDRESS: Final = "SKILLS_PIPE_SERVER_ADDRESS"
"""``http://host:port`` of that server."""
ENV_JOIN_PORT: Final = "SKILLS_PIPE_SERVER_JOIN_PORT"
"""Where the processes of a server on several nodes find each other."""
ENV_SANDBOX_PORT: Final = "NEMO_SKILLS_SANDBOX_PORT"
"""Port of the sandbox that runs in the same job, by NeMo-Skills' name; ``..._HOST`` and ``..._ADDRESS`` go with it."""

_STEP = re.compile(r"step_(\d+)")


def step_directory(step: int) -> str:
    """Name of the checkpoint folder of a step, ``step_120``."""
    return f"step_{step}"


def parse_step(name: str) -> int | None:
    """Step of a checkpoint folder's name, None for any other name (``tmp_step_3``, ``step_3-hf``)."""
    match = _STEP.fullmatch(name)
    return int(match.group(1)) if match else None


def hf_model_step(step: int) -> str:
    """Name of the folder that holds the Hugging Face export of one step, ``hf_model_step_120``."""
    return f"hf_model_step_{step}"


def manifest_path(output: Path) -> Path:
    """Where the manifest of an output lies: inside a folder, beside a file (``data.jsonl.manifest.json``)."""
    if output.is_dir():
        return output / MANIFEST
    return output.with_name(f"{output.name}.{MANIFEST}")


def validation_report(model: Path) -> Path:
    """Where ``ns convert --validate`` puts the losses of an exported model: beside it (``best.validation.json``)."""
    return model.with_name(f"{model.name}.validation.json")


def owner_path(output: Path) -> Path:
    """Where the launcher records which run writes an output: beside it (``.owner-checkpoints.json``)."""
    return output.with_name(f".owner-{output.name}.json")
