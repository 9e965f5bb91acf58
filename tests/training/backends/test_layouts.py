"""Two steps on every layout of ranks are the same arithmetic as in one process, for every family of models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributed.tensor import Replicate

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.tensor_parallel import fused, layers
from skills_pipe.training.backends.fsdp.tensor_parallel.fused import Routes
from skills_pipe.training.backends.fsdp.tensor_parallel.plan import PLANS
from skills_pipe.training.config.parallel import TENSOR_PARALLEL_FAMILIES, Layout
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.distributed import World
from tests.training.backends.layouts import (
    FAMILIES,
    LAYOUTS,
    MIXTURES,
    ROWS,
    agree,
    always,
    differences,
    settings,
    two_steps,
)
from tests.training.backends.scenario import BATCH, dataset
from tests.training.tiny import tiny_model

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
LIMIT = 2e-6
"""Rounding of fp32; the documented bound is 1e-5."""

QUICK = "tp2+sp"
"""The one layout that is tried for every family also where slow tests are left out."""

UNPACKED = BatchSettings(capacity=61, packing=False, micro_batch_size=1)


@pytest.fixture(scope="module")
def alone():
    """What one process finds, by family."""
    return {family: two_steps(ALONE, family=family) for family in FAMILIES}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "layout"),
    [
        pytest.param(family, layout, marks=() if layout in always(family) else pytest.mark.exhaustive)
        for family in FAMILIES
        for layout in LAYOUTS
        if layout != QUICK
    ],
)
def test_two_steps_are_those_of_one_process(request, alone, family, layout):
    sizes = LAYOUTS[layout]
    ranks = request.getfixturevalue("two_ranks" if sizes.ranks == 2 else "four_ranks")

    found = ranks(two_steps, family=family, layout=sizes)

    wrong = {name: value for name, value in differences(found[0], alone[family]).items() if not value <= LIMIT}
    assert not wrong
    assert agree(found)


@pytest.mark.parametrize("layout", [QUICK])
@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_that_two_ranks_make_quickly(two_ranks, alone, family, layout):
    found = two_ranks(two_steps, family=family, layout=LAYOUTS[layout])

    assert max(differences(found[0], alone[family]).values()) <= LIMIT
    assert agree(found)


@pytest.mark.parametrize(("family", "tied"), [("gemma2", False), ("gemma3_text", True), ("phi3", True)])
def test_tied_or_not_in_rows_of_one_document(two_ranks, family, tied):
    """The other way round than above."""
    case = {"family": family, "shape": {"tie_word_embeddings": tied}, "rows": UNPACKED}
    assert FAMILIES[family].get("tie_word_embeddings", False) != tied

    found = two_ranks(two_steps, layout=LAYOUTS[QUICK], **case)

    assert max(differences(found[0], two_steps(ALONE, **case)).values()) <= LIMIT


def unreduced_norms(world: World, *, family: str) -> dict:
    """Norms whose gradient is taken for the whole, though each rank has seen some tokens, or some heads, only."""
    right = layers.own_part
    layers.own_part = lambda parameter, **_: right(parameter)
    try:
        return two_steps(world, family=family, layout=LAYOUTS["tp2+sp"])
    finally:
        layers.own_part = right


def bias_on_every_rank(world: World, *, family: str) -> dict:
    right = layers.RowLinear._bias_once
    layers.RowLinear._bias_once = lambda self: layers.own_part(self.bias) if self.bias is not None else None
    try:
        return two_steps(world, family=family, layout=LAYOUTS["tp2"])
    finally:
        layers.RowLinear._bias_once = right


def untied(world: World, *, family: str) -> dict:
    """Embedding and output layer spread each by itself."""
    right = layers.spread
    from skills_pipe.training.backends.fsdp.tensor_parallel import plan

    plan.spread = lambda module, layer, group, known: right(module, layer, group, {})
    try:
        return two_steps(world, family=family, layout=LAYOUTS["tp2"])
    finally:
        plan.spread = right


def unscaled(world: World, *, family: str) -> dict:
    """Embeddings of shared words, of which the family's own class is forgotten."""
    right = layers._class_of_both
    layers._class_of_both = lambda layer, own: layer if issubclass(own, torch.nn.Embedding) else right(layer, own)
    try:
        return two_steps(world, family=family, layout=LAYOUTS["tp2"])
    finally:
        layers._class_of_both = right


def rows_taken_for_heads(world: World, *, family: str) -> dict:
    """What consecutive rows of fused weights give, taken for that of a rank's own heads and neurons."""
    right = fused.FusedLinear.forward
    fused.FusedLinear.forward = layers.ColumnLinear.forward
    try:
        return two_steps(world, family=family, layout=LAYOUTS["tp2"])
    finally:
        fused.FusedLinear.forward = right


def gradients_left_behind(world: World, *, family: str) -> dict:
    """Gradients of fused products stay with the rank that has the heads, not with the one that has the rows."""
    right = fused._Travel.backward
    fused._Travel.backward = staticmethod(lambda ctx, gradient: (gradient.contiguous(), None, None))
    try:
        return two_steps(world, family=family, layout=LAYOUTS["tp2"])
    finally:
        fused._Travel.backward = right


@pytest.mark.parametrize(
    ("fault", "family", "where"),
    [
        (unreduced_norms, "qwen3", ["input_layernorm", "q_norm", "k_norm", "model.norm"]),
        (unreduced_norms, "gemma3_text", ["post_attention_layernorm", "pre_feedforward", "post_feedforward", "k_norm"]),
        (unscaled, "gemma", ["losses and norms"]),
        (rows_taken_for_heads, "phi3", ["losses and norms"]),
        (gradients_left_behind, "phi3", ["qkv_proj", "gate_up_proj"]),
        (bias_on_every_rank, "llama", ["losses and norms"]),
        (untied, "qwen2", ["embed_tokens"]),
    ],
)
def test_the_comparison_sees(two_ranks, alone, fault, family, where):
    found = two_ranks(fault, family=family)[0]
    found["gradients"].pop("lm_head.weight", None) if fault is untied else None

    wrong = " ".join(name for name, value in differences(found, alone[family]).items() if value > 1e-4)
    assert all(part in wrong for part in where)


def other_documents_on_one_rank(world: World) -> float:
    backend = FsdpBackend(tiny_model("llama"), settings(layout=LAYOUTS["tp2"]), world)
    batch = split_batch(dataset(), range(BATCH), ROWS, 0, 1)
    if world.rank == 1:
        for microbatch in batch.microbatches:
            microbatch.input_ids.copy_(microbatch.input_ids.flip(1))
    return backend.train_step(batch.microbatches, targets=batch.global_weight).loss


def test_ranks_that_share_layers_need_the_same_documents(two_ranks):
    right = FsdpBackend(tiny_model("llama"), settings(), ALONE)
    batch = split_batch(dataset(), range(BATCH), ROWS, 0, 1)
    expected = right.train_step(batch.microbatches, targets=batch.global_weight).loss

    assert two_ranks(other_documents_on_one_rank)[0] != pytest.approx(expected, rel=1e-4)


def placed(world: World, *, sequence_parallel: bool) -> dict:
    layout = Layout(shard=2, tensor=2, sequence_parallel=sequence_parallel)
    model = FsdpBackend(tiny_model("qwen2", tie_word_embeddings=True), settings(layout=layout), world).trainee.model
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return {
        "tied": parameters["lm_head.weight"] is parameters["model.embed_tokens.weight"],
        "meshes": len({parameter.device_mesh for parameter in parameters.values()}),
        "whole": [name for name, value in parameters.items() if isinstance(value.placements[-1], Replicate)],
        "part": sum(parameter.to_local().numel() for parameter in model.parameters()),
        "all": sum(parameter.numel() for parameter in model.parameters()),
    }


def test_each_rank_holds_its_part_only_on_one_mesh_and_tied_weights_stay_tied(four_ranks):
    found = four_ranks(placed, sequence_parallel=True)[0]

    assert found["tied"]
    assert found["meshes"] == 1, "the optimizer and clipping take all parameters together"
    assert all("norm" in name for name in found["whole"])
    assert found["part"] < 0.3 * found["all"]


def test_every_output_of_a_fused_product_goes_to_one_rank():
    queries, keys, values = range(24), range(24, 30), range(30, 36)
    routes = [Routes.of((24, 6, 6), rank, 3) for rank in range(3)]

    arrived: list[list[int]] = [[], [], []]
    for source, route in enumerate(routes):
        for to, pieces in enumerate(route.sent):
            found = [12 * source + output for start, end in pieces for output in range(start, end)]
            assert len(found) == routes[to].received[source]
            arrived[to] += found
    assert arrived == [
        [*queries[8 * r : 8 * r + 8], *keys[2 * r : 2 * r + 2], *values[2 * r : 2 * r + 2]] for r in range(3)
    ]


def half_precision(world: World, *, family: str, layout: Layout | None) -> dict:
    return two_steps(world, family=family, layout=layout, changes={"dtype": torch.bfloat16})


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "gemma2", "phi3"])
def test_half_precision_is_close(four_ranks, alone, family):
    """As close as rounding to bfloat16 is to no rounding, but for a factor."""
    halved = half_precision(ALONE, family=family, layout=None)
    found = four_ranks(half_precision, family=family, layout=LAYOUTS["dp2 x tp2+sp"])[0]

    rounding, relative = differences(halved, alone[family]), differences(found, halved)
    assert 0 < relative["losses and norms"] < 5 * rounding["losses and norms"] < 2e-2
    assert max(relative.values()) < 5 * max(rounding.values()) < 0.2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("granularity", "family"), [("full", "qwen3"), ("selective", "qwen3"), ("full", "phi3"), ("selective", "phi3")]
)
def test_recomputed_activations_and_gradients_exchanged_each_time_change_nothing(
    four_ranks, alone, granularity, family
):
    changes = {"activation_checkpointing": True, "recompute_granularity": granularity, "defer_grad_sync": False}
    found = four_ranks(two_steps, family=family, layout=LAYOUTS["dp2 x tp2+sp"], changes=changes)[0]

    assert max(differences(found, alone[family]).values()) <= LIMIT


def dropped_out(world: World) -> list[tuple[float, float]]:
    """Losses with dropout of attention weights in every head, and what each rank draws after them."""
    layout = LAYOUTS["tp2"]
    model = tiny_model("llama", attention_dropout=0.5)
    here = replace(world, same_rows=layout.same_rows)
    torch.manual_seed(world.rank)
    backend = FsdpBackend(model, settings(layout=layout), here)
    batch = split_batch(dataset(), range(BATCH), ROWS, here.data_rank, here.data_size)
    loss = backend.train_step(batch.microbatches, targets=batch.global_weight).loss
    return [(loss, float(torch.rand(())))]


def test_ranks_drop_out_of_their_own_heads_and_agree_on_the_loss(two_ranks):
    (first,), (second,) = two_ranks(dropped_out)

    assert first[0] == second[0]
    assert first[1] != second[1]


def test_the_families_that_the_configuration_knows_are_those_with_a_plan():
    assert set(TENSOR_PARALLEL_FAMILIES) == set(PLANS) == {*FAMILIES, *MIXTURES}


def test_a_module_that_no_plan_knows_is_an_error(two_ranks):
    assert two_ranks(of_another_family) == ["no tensor parallel plan for extra (Linear)"] * 2


def of_another_family(world: World) -> str:
    model = tiny_model("llama")
    model.extra = torch.nn.Linear(2, 2)
    try:
        FsdpBackend(model, settings(layout=LAYOUTS["tp2"]), world)
    except ValueError as error:
        return str(error)
    return "accepted"
