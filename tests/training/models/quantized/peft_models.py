"""The same 4-bit base and adapters twice: ours, and peft's over layers of bitsandbytes, which are the oracle."""

from __future__ import annotations

from pathlib import Path

import bitsandbytes
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.quantization import BLOCK, QuantizationSpec
from skills_pipe.training.models.load import open_model
from skills_pipe.training.models.lora import freeze_but_adapters, initialise
from skills_pipe.training.models.lora.apply import base_name
from skills_pipe.training.models.pretrained.empty import materialise
from skills_pipe.training.models.quantized import fill_quantized, quantize_layers
from skills_pipe.training.models.spec import ModelSpec
from tests.training.models.lora.peft_models import Pair, with_adapters_of_peft

WIDE = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
"""Sizes of a tiny model whose rows are whole blocks."""


def ours(folder: Path, spec: QuantizationSpec, adapters: AdapterSpec, dtype=torch.float32) -> PreTrainedModel:
    """A model with a base in 4 bit and fresh adapters, as the backend makes it."""
    model, weights = open_model(ModelSpec(name=str(folder)))
    quantize_layers(model, spec, dtype)
    freeze_but_adapters(model, adapters, dtype)
    materialise(model, torch.device("cpu"))
    weights.fill(model, base_name)
    fill_quantized(model, weights)
    initialise(model, adapters, seed=3)
    # Training packs rows; the oracle knows plain ones.
    model.set_attn_implementation("eager")
    return model


def bitsandbytes_model(folder: Path, spec: QuantizationSpec, *, block: int = BLOCK) -> PreTrainedModel:
    """What transformers loads, with each linear layer but the output layer as bitsandbytes has it in 4 bit."""
    model = whole_model(folder)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name != "lm_head":
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, _linear_4bit(module, spec, block))
    return model


def whole_model(folder: Path) -> PreTrainedModel:
    """What transformers loads."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def pair(folder: Path, spec: QuantizationSpec, adapters: AdapterSpec, *, theirs: PreTrainedModel | None = None) -> Pair:
    """Both models with the same adapters; ``theirs`` falsifies the oracle's base."""
    base = bitsandbytes_model(folder, spec) if theirs is None else theirs
    return with_adapters_of_peft(ours(folder, spec, adapters), base, adapters)


def _linear_4bit(module: nn.Linear, spec: QuantizationSpec, block: int) -> bitsandbytes.nn.Linear4bit:
    made = bitsandbytes.nn.Linear4bit(
        module.in_features, module.out_features, bias=module.bias is not None, compute_dtype=torch.float32
    )
    made.weight = bitsandbytes.nn.Params4bit(
        module.weight.detach(),
        requires_grad=False,
        blocksize=block,
        compress_statistics=spec.double,
        quant_type=spec.values,
        module=made,
    )
    made.bias = module.bias
    # The move to a device packs the weight.
    return made.to("cpu")
