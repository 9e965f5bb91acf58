"""Which model to load, and its configuration; no weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from skills_pipe.errors import ConfigError, first_line
from skills_pipe.training.config.families import untrainable

_KEY = "policy.model_name"
_ARCHIVE = ".nemo"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which model to load.

    Attributes:
        name: a folder in Hugging Face's format, or the id of a model on the hub.
        overrides: values that replace those of the model's ``config.json``.
        revision: commit, tag or branch of a hub model; None for its main branch.
    """

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    revision: str | None = None


def load_model_config(spec: ModelSpec) -> PreTrainedConfig:
    """The configuration of the model, with the overrides applied; no weights are read.

    Raises:
        ConfigError: the model is not to be found, or is of a family that is not supported.
    """
    try:
        config = AutoConfig.from_pretrained(spec.name, revision=spec.revision or "main")
    except (OSError, ValueError) as error:
        raise _unreadable(spec, error) from error
    unknown = [key for key in spec.overrides if not hasattr(config, key)]
    if unknown:
        raise ConfigError(
            f"{_some(unknown)} is no key of the configuration of {spec.name}",
            where="policy.hf_config_overrides",
            fix="see the model's config.json",
        )
    for key, value in spec.overrides.items():
        setattr(config, key, value)
    problems = untrainable(config.to_dict())
    if problems:
        raise problems[0]
    return config


def _unreadable(spec: ModelSpec, error: Exception) -> ConfigError:
    reason = first_line(error)
    if spec.name.endswith(_ARCHIVE) and not Path(spec.name).is_dir():
        return ConfigError(
            f"the model {spec.name} is an archive, not a folder",
            where=_KEY,
            fix="unpack it, and give the folder that this makes: python -m "
            f"skills_pipe.training.release.archive.unpack --archive={spec.name} --output=FOLDER",
        )
    if Path(spec.name).exists():
        return ConfigError(f"{spec.name} cannot be read as a Hugging Face model: {reason}", where=_KEY)
    return ConfigError(
        f"no model {spec.name!r}: {reason}",
        where=_KEY,
        fix="give a folder with config.json and safetensors, or the id of a model on the hub",
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
