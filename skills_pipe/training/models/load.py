"""A base model and its tokenizer from a folder or from the Hugging Face hub, ready for packed training."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.families import untrainable
from skills_pipe.training.models.attention import IMPLEMENTATION
from skills_pipe.training.models.pretrained.empty import materialise, parameters_on_meta
from skills_pipe.training.models.pretrained.files import stored_tensors
from skills_pipe.training.models.pretrained.weights import PretrainedWeights

_KEY = "policy.model_name"


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


def load_model(spec: ModelSpec) -> PreTrainedModel:
    """The model with fp32 weights on the CPU, its tied weights tied, its attention packed.

    Raises:
        ConfigError: as :func:`open_model`.
    """
    model, weights = open_model(spec)
    materialise(model, torch.device("cpu"))
    weights.fill(model)
    return model


def open_model(spec: ModelSpec) -> tuple[PreTrainedModel, PretrainedWeights]:
    """The model with fp32 parameters that have no memory yet, and where their values lie.

    It may be sharded before :func:`skills_pipe.training.models.pretrained.empty.materialise` gives it memory and
    :meth:`PretrainedWeights.fill` the values: no process then holds more than its shard.

    Raises:
        ConfigError: the model is not to be found, is of a family that is not supported, or its files do not fit it.
    """
    config = load_model_config(spec)
    stored = stored_tensors(spec.name, spec.revision)
    with parameters_on_meta():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=IMPLEMENTATION)
    model.eval()
    _set_generation_config(model, spec)
    return model, PretrainedWeights.of(model, stored, name=spec.name)


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


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or a hub model; without a padding token of its own, it pads with its end token.

    Raises:
        ConfigError: there is no tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"no tokenizer in {name!r}: {_first_line(error)}",
            where="policy.tokenizer.name",
            fix="give a folder with tokenizer.json, or the id of a model on the hub",
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _set_generation_config(model: PreTrainedModel, spec: ModelSpec) -> None:
    """The settings that are published with the model; without them those that its configuration implies stay."""
    # No file, no network, or a file that transformers does not accept: none of them concerns training.
    with suppress(OSError, ValueError):
        model.generation_config = GenerationConfig.from_pretrained(spec.name, revision=spec.revision or "main")


def _unreadable(spec: ModelSpec, error: Exception) -> ConfigError:
    reason = _first_line(error)
    if Path(spec.name).exists():
        return ConfigError(f"{spec.name} cannot be read as a Hugging Face model: {reason}", where=_KEY)
    return ConfigError(
        f"no model {spec.name!r}: {reason}",
        where=_KEY,
        fix="give a folder with config.json and safetensors, or the id of a model on the hub",
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
