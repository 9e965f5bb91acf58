"""Ranks that share every row: two steps are the same arithmetic as in one process, however documents are divided."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from skills_pipe.errors import ConfigError
from skills_pipe.training import collectives
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.parallel import (
    CONTEXT_PARALLEL_FAMILIES,
    EXPERT_PARALLEL_FAMILIES,
    TENSOR_PARALLEL_FAMILIES,
    Layout,
)
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models import context
from skills_pipe.training.models.row import Row
from tests.training.backends.layouts import agree, differences, settings, two_steps
from tests.training.backends.scenario import BATCH, dataset
from tests.training.tiny import tiny_model

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
LIMIT = 2e-6
"""Rounding of fp32; the documented bound is 1e-5."""

ROWS = {
    "packed": BatchSettings(capacity=150),
    "in rows of one or two documents": BatchSettings(capacity=61),
    "unpacked": BatchSettings(capacity=61, packing=False, micro_batch_size=1),
}
"""Pieces of rows that begin and end within documents; with each document alone, every piece does."""

LAYOUTS = {
    "cp2": Layout(context=2),
    "cp4": Layout(context=4),
    "dp2 x cp2": Layout(shard=2, context=2),
    "replicate2 x cp2": Layout(replicate=2, context=2),
    "cp2 x tp2": Layout(context=2, tensor=2),
    "cp2 x tp2+sp": Layout(context=2, tensor=2, sequence_parallel=True),
}


def layouts_of(family: str) -> list[str]:
    """On which a family is tried; mixtures on others in :mod:`tests.training.backends.test_experts`."""
    shares_layers = family in TENSOR_PARALLEL_FAMILIES and family not in EXPERT_PARALLEL_FAMILIES
    return [name for name, layout in LAYOUTS.items() if shares_layers or layout.tensor == 1]


def always(family: str) -> tuple[str, ...]:
    """What a family is tried on in each run of the suite, besides ``cp2``."""
    if family == "llama":
        return tuple(LAYOUTS)
    return {"gemma2": ("cp4", "cp2 x tp2+sp"), "phi3": ("cp2 x tp2",), "gpt_oss": ("cp4",)}.get(family, ())


@pytest.fixture(scope="module")
def alone():
    """What one process finds, by family."""
    return {family: two_steps(ALONE, family=family) for family in CONTEXT_PARALLEL_FAMILIES}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "layout"),
    [
        pytest.param(family, layout, marks=() if layout in always(family) else pytest.mark.exhaustive)
        for family in CONTEXT_PARALLEL_FAMILIES
        for layout in layouts_of(family)
    ],
)
def test_two_steps_are_those_of_one_process(request, alone, family, layout):
    sizes = LAYOUTS[layout]
    ranks = request.getfixturevalue("two_ranks" if sizes.ranks == 2 else "four_ranks")

    found = ranks(two_steps, family=family, layout=sizes, rows=ROWS["packed"])

    wrong = {name: value for name, value in differences(found[0], alone[family]).items() if not value <= LIMIT}
    assert not wrong
    assert agree(found)


@pytest.mark.parametrize(
    ("family", "rows"),
    [*((family, "packed") for family in CONTEXT_PARALLEL_FAMILIES)]
    + [(family, rows) for family in ("llama", "mistral") for rows in ROWS if rows != "packed"],
)
def test_two_ranks_share_rows_of_any_kind(two_ranks, alone, family, rows):
    found = two_ranks(two_steps, family=family, layout=LAYOUTS["cp2"], rows=ROWS[rows])

    assert max(differences(found[0], alone[family]).values()) <= LIMIT


def unsummed_gradients(world: World, **arguments) -> dict:
    """Each rank keeps what it has of the gradients of its own keys and values."""
    right = collectives._Collect.backward

    def own_part(ctx, gradient):
        return gradient.chunk(world.size)[world.rank].contiguous(), None

    collectives._Collect.backward = staticmethod(own_part)
    try:
        return two_steps(world, **arguments)
    finally:
        collectives._Collect.backward = right


def in_the_order_of_ranks(world: World, **arguments) -> dict:
    """Keys as if rank r had the r-th part of the row."""
    right = context.Share.of_all

    def unsorted(self, key, value):
        return tuple(
            collectives.collected(each[0].transpose(0, 1), self.group).transpose(0, 1)[None] for each in (key, value)
        )

    context.Share.of_all = unsorted
    try:
        return two_steps(world, **arguments)
    finally:
        context.Share.of_all = right


def positions_from_zero(world: World, **arguments) -> dict:
    """As a model numbers tokens that it takes for a whole row."""
    right = Row.shared

    def renumbered(self, group):
        row = right(self, group)
        return replace(row, position_ids=torch.arange(row.position_ids.shape[1])[None])

    Row.shared = renumbered
    try:
        return two_steps(world, **arguments)
    finally:
        Row.shared = right


def own_keys_only(world: World, **arguments) -> dict:
    """Ranks that do not see what others have: each attends within its own tokens."""
    right = context.ContextGroup.share

    def alone(self, lengths, device):
        share = right(self, lengths, device)
        cut = [(each.begin, each.end) for each in share.stretches]
        stretches = tuple(context.Stretch.of((a, b - a, sum(lengths) - b), a, b, device) for a, b in cut)
        return context.Share(group=self.group, stretches=stretches)

    context.ContextGroup.share = alone
    try:
        return two_steps(world, **arguments)
    finally:
        context.ContextGroup.share = right


def counted_once(world: World, **arguments) -> dict:
    """The loss of the first rank's tokens taken for that of all."""
    right = FsdpBackend._over_ranks
    FsdpBackend._over_ranks = lambda self, loss: world.sum(loss if world.rank == 0 else 0.0)
    try:
        return two_steps(world, **arguments)
    finally:
        FsdpBackend._over_ranks = right


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (unsummed_gradients, ["k_proj", "v_proj"]),
        (in_the_order_of_ranks, ["losses and norms"]),
        (positions_from_zero, ["losses and norms"]),
        (own_keys_only, ["losses and norms"]),
        (counted_once, ["losses and norms"]),
    ],
)
def test_the_comparison_sees(two_ranks, alone, fault, where):
    found = two_ranks(fault, family="qwen3", layout=LAYOUTS["cp2"], rows=ROWS["packed"])[0]

    wrong = " ".join(name for name, value in differences(found, alone["qwen3"]).items() if value > 1e-4)
    assert all(part in wrong for part in where)


def other_rows_on_one_rank(world: World) -> float:
    backend = FsdpBackend(tiny_model("llama"), settings(layout=LAYOUTS["cp2"]), world)
    batch = split_batch(dataset(), range(BATCH), ROWS["packed"], 0, 1)
    if world.rank == 1:
        for microbatch in batch.microbatches:
            microbatch.input_ids.copy_(microbatch.input_ids.flip(1))
    return backend.train_step(batch.microbatches, targets=batch.global_weight).loss


def test_ranks_that_share_rows_need_the_same_rows(two_ranks):
    right = FsdpBackend(tiny_model("llama"), settings(), ALONE)
    batch = split_batch(dataset(), range(BATCH), ROWS["packed"], 0, 1)
    expected = right.train_step(batch.microbatches, targets=batch.global_weight).loss

    assert two_ranks(other_rows_on_one_rank)[0] != pytest.approx(expected, rel=1e-4)


def half_precision(world: World, *, layout: Layout | None) -> dict:
    return two_steps(world, family="qwen3", layout=layout, changes={"dtype": torch.bfloat16}, rows=ROWS["packed"])


def test_half_precision_is_close(two_ranks):
    alone = half_precision(ALONE, layout=None)
    found = two_ranks(half_precision, layout=LAYOUTS["cp2"])[0]

    relative = differences(found, alone)
    assert relative["losses and norms"] < 3e-3
    assert max(relative.values()) < 5e-2


@pytest.mark.parametrize("granularity", ["full", "selective"])
def test_recomputed_activations_and_gradients_exchanged_each_time_change_nothing(two_ranks, alone, granularity):
    changes = {"activation_checkpointing": True, "recompute_granularity": granularity, "defer_grad_sync": False}
    found = two_ranks(two_steps, family="mistral", layout=LAYOUTS["cp2"], changes=changes)[0]

    assert max(differences(found, alone["mistral"]).values()) <= LIMIT


@pytest.mark.parametrize("decomposed", [False, True])
def test_adapters_are_trained_as_in_one_process(two_ranks, decomposed):
    changes = {"adapters": AdapterSpec(dim=4, alpha=8, decomposed=decomposed), "seed": 3}
    found = two_ranks(two_steps, family="qwen3", layout=LAYOUTS["cp2"], changes=changes, rows=ROWS["packed"])[0]

    relative = differences(found, two_steps(ALONE, family="qwen3", changes=changes))
    assert max(relative.values()) <= LIMIT
    assert all("lora_" in name for name in found["gradients"])


def tokens_of(world: World, *, layout: Layout) -> list[int]:
    """How many tokens each forward pass of the first layer has on this rank."""
    model, seen = tiny_model("llama"), []
    here = replace(world, same_rows=layout.same_rows)
    backend = FsdpBackend(model, settings(layout=layout), here)
    backend.trainee.model.model.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    batch = split_batch(dataset(), range(BATCH), ROWS["packed"], here.data_rank, here.data_size)
    backend.train_step(batch.microbatches, targets=batch.global_weight)
    return [seen, [microbatch.tokens for microbatch in batch.microbatches]]


@pytest.mark.slow
def test_each_rank_computes_its_part_of_the_tokens(four_ranks):
    for own, of_row in four_ranks(tokens_of, layout=LAYOUTS["cp4"]):
        assert own == [-(-tokens // 8) * 2 for tokens in of_row]


def refused(world: World) -> str:
    try:
        FsdpBackend(tiny_model("stablelm"), settings(layout=LAYOUTS["cp2"]), world)
    except ConfigError as error:
        return error.what
    return "accepted"


def test_a_family_that_is_not_proven_is_refused(two_ranks):
    proven = ", ".join(CONTEXT_PARALLEL_FAMILIES)
    assert two_ranks(refused) == [f"context parallelism is proven exact for {proven}, not for stablelm"] * 2
