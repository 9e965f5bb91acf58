"""Two steps of training on any layout of ranks: losses, gradient norms, and the whole gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models.lora import adapted_modules, add_adapters, initialise
from tests.training.backends.scenario import BATCH, dataset, whole
from tests.training.tiny import tiny_model

ROWS = BatchSettings(capacity=97)
"""Several microbatches of odd lengths on up to two ranks with data of their own."""

SHORT_ROWS = BatchSettings(capacity=61)
"""Several on four of them."""

SGD = ObjectConfig(name="torch.optim.SGD", kwargs={"lr": 0.1, "momentum": 0.5})

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {"num_attention_heads": 8, "num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
    "mistral": {"num_key_value_heads": 4, "sliding_window": 16},
    "qwen2": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "qwen3": {"num_key_value_heads": 4},
    "gemma": {"num_key_value_heads": 4, "tie_word_embeddings": True},
    "gemma2": {"num_attention_heads": 8, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "gemma3_text": {"num_key_value_heads": 4},
    "phi3": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        "sliding_window": 16,
    },
}
"""Tensor parallel families, each with what is special in it, and four key-value heads for four ranks."""

LAYOUTS = {
    "dp2": Layout(shard=2),
    "tp2": Layout(tensor=2),
    "tp2+sp": Layout(tensor=2, sequence_parallel=True),
    "dp2 x tp2": Layout(shard=2, tensor=2),
    "dp2 x tp2+sp": Layout(shard=2, tensor=2, sequence_parallel=True),
    "replicate2 x shard2": Layout(replicate=2, shard=2),
    "replicate2 x tp2": Layout(replicate=2, tensor=2),
    "tp4": Layout(tensor=4),
    "tp4+sp": Layout(tensor=4, sequence_parallel=True),
}


def always(family: str) -> tuple[str, ...]:
    """The layouts of :data:`LAYOUTS` that a family is tried on in each run of the suite."""
    if family == "llama":
        return tuple(LAYOUTS)
    of_its_own = family in ("gemma2", "phi3")
    return ("tp2", "dp2 x tp2+sp", "tp4+sp") if of_its_own else ("dp2 x tp2+sp",)


MIXTURES: Mapping[str, Mapping[str, Any]] = {
    "qwen3_moe": {
        "num_hidden_layers": 3,
        "mlp_only_layers": [1],
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "moe_intermediate_size": 24,
        "norm_topk_prob": True,
        "num_key_value_heads": 4,
    },
    "gpt_oss": {"num_local_experts": 8, "num_experts_per_tok": 3, "num_attention_heads": 12, "num_key_value_heads": 4},
}
"""Families with experts; of Qwen3-MoE one layer of three has none."""


def settings(**changes: Any) -> FsdpSettings:
    return replace(FsdpSettings(optimizer=SGD, max_grad_norm=0.25), **changes)


def two_steps(
    world: World,
    *,
    family: str,
    layout: Layout | None = None,
    changes: Mapping[str, Any] | None = None,
    rows: BatchSettings | None = None,
    shape: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Losses and norms of two steps, the loss of an evaluation, gradients of the second step, weights after it."""
    layout = layout or Layout(shard=world.size)
    model = tiny_model(family, **({**FAMILIES, **MIXTURES}.get(family, {}) | (shape or {})))
    randomise(model)
    adapters = (changes or {}).get("adapters")
    if adapters is not None:
        adapt(model, adapters)
    here = replace(world, same_rows=layout.same_rows)
    backend = FsdpBackend(model, settings(layout=layout, **(changes or {})), here)
    several, rows = rows is None, rows or (SHORT_ROWS if here.data_size > 2 else ROWS)
    data, losses, norms, gradients = dataset(), [], [], {}
    backend.trainee.optimizer.register_step_pre_hook(lambda *_: gradients.update(gradients_of(backend)))
    for step in range(2):
        batch = split_batch(data, range(step * BATCH, (step + 1) * BATCH), rows, here.data_rank, here.data_size)
        assert len(batch.microbatches) > 1 or not several, "gradients are gathered over microbatches"
        result = backend.train_step(batch.microbatches, targets=batch.global_weight)
        losses.append(result.loss)
        norms.append(result.grad_norm)
    batch = split_batch(data, range(BATCH), rows, here.data_rank, here.data_size)
    evaluated = backend.evaluate(batch.microbatches) / batch.global_weight
    weights = {name: whole(value) for name, value in backend.trainee.model.state_dict().items()}
    return {"losses": losses, "norms": norms, "evaluated": evaluated, "gradients": gradients, "weights": weights}


def randomise(model: torch.nn.Module) -> None:
    """Norms and biases away from their initial ones and zeros, which would hide what is done to them twice.

    What experts add to a token is made as large as the rest of it, else nobody would miss it.
    """
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            elif parameter.dim() == 3:
                parameter.mul_(8.0)


def adapt(model: torch.nn.Module, spec: AdapterSpec) -> None:
    """Adapters that have learned already: as long as B is zero, A has no gradient, and lengths are those of rows."""
    generator = torch.Generator().manual_seed(4)
    add_adapters(model, spec)
    initialise(model, spec, seed=2)
    with torch.no_grad():
        for module in adapted_modules(model).values():
            module.lora_B.weight.normal_(std=0.02, generator=generator)
            if module.lora_magnitude_vector is not None:
                lengths = module.lora_magnitude_vector.weight
                lengths.mul_(1.0 + 0.1 * torch.randn(lengths.shape, generator=generator))


def gradients_of(backend: FsdpBackend) -> dict[str, torch.Tensor]:
    named = backend.trainee.model.named_parameters()
    return {name: whole(parameter.grad) for name, parameter in named if parameter.grad is not None}


def agree(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all ranks have ended with the same losses, norms and weights, to the bit.

    Of weights that each rank has whole every rank tells its own, unlike losses and norms, which one tells all.
    """
    first, *others = found
    return all(
        (one["losses"], one["norms"]) == (first["losses"], first["norms"])
        and all(torch.equal(one["weights"][name], value) for name, value in first["weights"].items())
        for one in others
    )


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> dict[str, float]:
    """Relative differences by what differs: losses, norms, every gradient and weight.

    A tensor whose norm is below a tenth of that of all is compared with that tenth: gradients of queries and keys are
    small sums of large terms, with the rounding of the terms.
    """
    losses = torch.tensor([*found["losses"], found["evaluated"], *found["norms"]], dtype=torch.float64)
    same = torch.tensor([*expected["losses"], expected["evaluated"], *expected["norms"]], dtype=torch.float64)
    relative = {"losses and norms": float(((losses - same) / same).abs().max())}
    for part in ("gradients", "weights"):
        assert found[part].keys() == expected[part].keys()
        least = 0.1 * torch.nn.utils.get_total_norm(expected[part].values())
        for name, value in expected[part].items():
            difference = (found[part][name] - value).norm() / torch.maximum(value.norm(), least)
            relative[f"{part}: {name}"] = float(difference)
    return relative
