"""A base model from a folder or from the Hugging Face hub, ready for packed training."""

from __future__ import annotations

from contextlib import suppress

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from skills_pipe.training.models.attention import IMPLEMENTATION
from skills_pipe.training.models.pretrained.empty import materialise, parameters_on_meta
from skills_pipe.training.models.pretrained.files import stored_tensors
from skills_pipe.training.models.pretrained.weights import PretrainedWeights
from skills_pipe.training.models.spec import ModelSpec, load_model_config


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


def _set_generation_config(model: PreTrainedModel, spec: ModelSpec) -> None:
    """The settings that are published with the model; without them those that its configuration implies stay."""
    # No file, no network, or a file that transformers does not accept: none of them concerns training.
    with suppress(OSError, ValueError):
        model.generation_config = GenerationConfig.from_pretrained(spec.name, revision=spec.revision or "main")
