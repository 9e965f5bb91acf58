"""The same adapters twice: ours, and those of peft, which is the oracle."""

from __future__ import annotations

from dataclasses import dataclass

import peft
import torch
from transformers import PreTrainedModel

from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.models.lora import adapted_modules, add_adapters, initialise
from tests.training.tiny import tiny_model


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A model with our adapters and one with peft's, with the same values."""

    ours: PreTrainedModel
    theirs: peft.PeftModel


def pair(architecture: str, spec: AdapterSpec, *, scale: float = 1.0, **changes) -> Pair:
    """Both models; B is no longer zero, so that the adapters say something. ``scale`` falsifies peft's."""
    ours, theirs = tiny_model(architecture, **changes), tiny_model(architecture, **changes)
    add_adapters(ours, spec)
    initialise(ours, spec, seed=3)
    return with_adapters_of_peft(ours, theirs, spec, scale=scale)


def with_adapters_of_peft(
    ours: PreTrainedModel, theirs: PreTrainedModel, spec: AdapterSpec, *, scale: float = 1.0
) -> Pair:
    """Our model with adapters, and another one that gets peft's on the same layers, with the same new values."""
    wrapped = peft.get_peft_model(
        theirs,
        peft.LoraConfig(
            r=spec.dim,
            lora_alpha=spec.alpha * scale,
            lora_dropout=spec.dropout,
            target_modules=list(adapted_modules(ours)),
            use_rslora=spec.rank_stabilised,
            use_dora=spec.decomposed,
            task_type="CAUSAL_LM",
        ),
    )
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, module in adapted_modules(ours).items():
            module.lora_B.weight.normal_(std=0.1, generator=generator)
            if module.lora_magnitude_vector is not None:
                noise = torch.rand(module.lora_magnitude_vector.weight.shape, generator=generator)
                module.lora_magnitude_vector.weight.mul_(0.5 + noise)
            their = theirs.get_submodule(name)
            their.lora_A["default"].weight.copy_(module.lora_A.weight)
            their.lora_B["default"].weight.copy_(module.lora_B.weight)
            if module.lora_magnitude_vector is not None:
                their.lora_magnitude_vector["default"].weight.copy_(module.lora_magnitude_vector.weight)
    return Pair(ours=ours, theirs=wrapped)


def adapter_values(pair: Pair, read) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """``read`` of each adapter parameter of ours beside that of peft's, by our name."""
    their_model = pair.theirs.get_base_model()
    found = {}
    for name, module in adapted_modules(pair.ours).items():
        their = their_model.get_submodule(name)
        found[f"{name}.lora_A"] = (read(module.lora_A.weight), read(their.lora_A["default"].weight))
        found[f"{name}.lora_B"] = (read(module.lora_B.weight), read(their.lora_B["default"].weight))
        if module.lora_magnitude_vector is not None:
            theirs = their.lora_magnitude_vector["default"].weight
            found[f"{name}.lora_magnitude_vector.weight"] = (read(module.lora_magnitude_vector.weight), read(theirs))
    return found
