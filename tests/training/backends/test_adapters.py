"""Adapters in the backend: any number of ranks gives the same, and only they cost gradients and optimizer state."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models.lora import adapted_modules
from tests.training.backends.scenario import BATCH, PACKED, Found, dataset, make_backend, train
from tests.training.backends.test_fsdp import ALONE, assert_same

ADAMW = ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": 1e-2})
DORA = AdapterSpec(dim=4, alpha=8, decomposed=True)
LORA = FsdpSettings(optimizer=ADAMW, adapters=AdapterSpec(dim=4, alpha=8), seed=3)
SETTINGS = {
    "lora": LORA,
    "dora": replace(LORA, adapters=DORA),
    "some layers": replace(LORA, adapters=AdapterSpec(dim=3, alpha=8, targets=("*.1.*.q_proj", "down_proj"))),
    "bfloat16": replace(LORA, dtype=torch.bfloat16),
    "dora in bfloat16": replace(LORA, adapters=DORA, dtype=torch.bfloat16),
    "dora in bfloat16, recomputed": replace(LORA, adapters=DORA, dtype=torch.bfloat16, activation_checkpointing=True),
    "recomputed": replace(LORA, activation_checkpointing=True),
    "recomputed in part": replace(LORA, activation_checkpointing=True, recompute_granularity="selective"),
    "uniform": replace(LORA, adapters=AdapterSpec(dim=4, alpha=8, initial="uniform"), defer_grad_sync=False),
}


def case(world: World, *, name: str, architecture: str) -> Found:
    return train(SETTINGS[name], world, PACKED, architecture)


@pytest.mark.parametrize(
    ("name", "architecture"), [*((name, "llama") for name in SETTINGS), ("lora", "qwen2"), ("dora", "qwen3")]
)
def test_two_ranks_train_as_one_does(two_ranks, name, architecture):
    together = two_ranks(case, name=name, architecture=architecture)[0]
    alone = train(SETTINGS[name], ALONE, PACKED, architecture)

    tolerance = 2e-3 if "bfloat16" in name else 1e-6
    assert_same(together, alone, loss=tolerance, weights=20 * tolerance)


def test_other_first_values_would_be_noticed():
    one, other = (train(replace(LORA, seed=seed), ALONE, PACKED) for seed in (3, 4))
    with pytest.raises(AssertionError):
        assert_same(one, other, loss=1e-6, weights=2e-5)


def trained_once(settings: FsdpSettings):
    backend = make_backend(settings, ALONE, tie_word_embeddings=True)
    batch = split_batch(dataset(), range(BATCH), PACKED, 0, 1)
    before = {name: value.clone() for name, value in backend.trainee.model.state_dict().items()}
    backend.train_step(batch.microbatches, targets=batch.global_targets)
    return backend.trainee, before


def test_all_but_the_adapters_stays_as_it_was_in_the_type_that_computes():
    trainee, before = trained_once(SETTINGS["bfloat16"])

    for name, parameter in trainee.model.named_parameters():
        learns = ".lora_" in name
        assert parameter.dtype == (torch.float32 if learns else torch.bfloat16), name
        assert parameter.grad is None
        assert learns or torch.equal(parameter, before[name]), name
    assert trainee.model.lm_head.weight is trainee.model.model.embed_tokens.weight


def test_the_optimizer_knows_the_adapters_alone():
    trainee, _ = trained_once(LORA)

    known = {id(parameter) for group in trainee.optimizer.param_groups for parameter in group["params"]}
    assert known == {id(p) for name, p in trainee.model.named_parameters() if ".lora_" in name}
    assert {id(parameter) for parameter in trainee.optimizer.state} == known


def test_a_frozen_base_in_bfloat16_computes_what_copies_of_float32_do():
    """The weights are rounded once instead of in every step."""
    narrow = train(SETTINGS["bfloat16"], ALONE, PACKED)
    backend = make_backend(SETTINGS["bfloat16"], ALONE)
    assert all(module.weight.dtype == torch.bfloat16 for module in adapted_modules(backend.trainee.model).values())
    reference = make_backend(replace(SETTINGS["bfloat16"], adapters=None), ALONE)
    batch = split_batch(dataset(), range(BATCH), PACKED, 0, 1)

    # With B at zero the adapters add nothing yet.
    assert backend.evaluate(batch.microbatches) == reference.evaluate(batch.microbatches)
    assert narrow.losses[0] == pytest.approx(backend.evaluate(batch.microbatches) / batch.global_targets, rel=1e-6)


def untrained(world: World, *, rounded: bool) -> tuple[float, float]:
    """What fresh DoRA adapters and the model without any compute on the same rows in bfloat16."""
    settings = SETTINGS["dora in bfloat16"]
    batch = split_batch(dataset(), range(BATCH), PACKED, world.rank, world.size)
    backend, base = (make_backend(each, world) for each in (settings, replace(settings, adapters=None)))
    if rounded:
        with torch.no_grad():
            for module in adapted_modules(backend.trainee.model).values():
                lengths = module.lora_magnitude_vector.weight
                lengths.copy_(lengths.to(torch.bfloat16))
    return tuple(each.evaluate(batch.microbatches) for each in (backend, base))


def test_fresh_dora_in_bfloat16_is_the_base_model_bit_for_bit(two_ranks):
    for fresh, base in (untrained(ALONE, rounded=False), *two_ranks(untrained, rounded=False)):
        assert fresh == base


def test_lengths_rounded_to_bfloat16_would_be_noticed(two_ranks):
    for fresh, base in (untrained(ALONE, rounded=True), *two_ranks(untrained, rounded=True)):
        assert fresh != base


def lengths_and_gradients(world: World) -> list[tuple[torch.dtype, torch.dtype, float]]:
    """While the model computes: the type of the lengths, that of their gradients, and how far a step moved them."""
    backend = make_backend(SETTINGS["dora in bfloat16"], world)
    seen: list[torch.dtype] = []
    modules = [module.lora_magnitude_vector for module in adapted_modules(backend.trainee.model).values()]
    for module in modules:
        module.register_forward_hook(lambda module, given, result: seen.append(module.weight.dtype))
    before = [module.weight.detach().clone() for module in modules]
    batch = split_batch(dataset(), range(BATCH), PACKED, world.rank, world.size)
    backend.train_step(batch.microbatches, targets=batch.global_targets)
    moved = [float((module.weight.detach() - old).abs().max()) for module, old in zip(modules, before, strict=True)]
    return [(kind, module.weight.dtype, far) for kind, module, far in zip(seen, modules, moved, strict=False)]


def test_lengths_compute_and_learn_in_float32(two_ranks):
    for found in (lengths_and_gradients(ALONE), *two_ranks(lengths_and_gradients)):
        assert len(found) == 14
        assert {(computes, kept) for computes, kept, _ in found} == {(torch.float32, torch.float32)}
        assert all(far > 0 for _, _, far in found)
