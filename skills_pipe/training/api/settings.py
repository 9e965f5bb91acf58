"""The configuration of a trainer: what the user gave, with the model and the data sets that the trainer was given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skills_pipe.training.api.dataset import SFTDataset
from skills_pipe.training.api.model import HuggingFaceModel
from skills_pipe.training.config import TrainingConfig, load_config
from skills_pipe.training.config.files import load_with_parents
from skills_pipe.training.config.quoted import quoted


def configuration(
    given: Mapping[str, Any] | str | Path | None,
    model: HuggingFaceModel,
    train: SFTDataset,
    validation: SFTDataset | None,
) -> TrainingConfig:
    """The complete configuration.

    Raises:
        ConfigError: it has mistakes.
    """
    source = Path(given) if isinstance(given, str) else given or {}
    values = {
        "policy.model_name": model.name,
        "data.train.data_path": str(train.path),
        "data.train.dataset_name": train.name,
    }
    if validation is not None:
        values |= {"data.validation.data_path": str(validation.path), "data.validation.dataset_name": validation.name}
    overrides = [f"++{key}={quoted(value)}" for key, value in values.items()]
    sections: Mapping[str, Any] = source if isinstance(source, Mapping) else load_with_parents(source).tree
    if "checkpointing" not in sections:
        overrides.append("++checkpointing.enabled=false")
    # Rows are no prepared text, so the tokens that begin and end one are added, unless the user says otherwise.
    data = sections.get("data") or {}
    overrides += [f"++data.{key}=true" for key in ("add_bos", "add_eos") if key not in data]
    return load_config(source, overrides)
