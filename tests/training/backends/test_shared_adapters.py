"""Adapters where ranks share layers, rows or experts: two steps are the same arithmetic as in one process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.distributed.tensor import Replicate

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.tensor_parallel import adapted, layers
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.parallel import EXPERT_PARALLEL_FAMILIES, TENSOR_PARALLEL_FAMILIES, Layout
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models.lora import adapted_modules
from tests.training.backends import test_context, test_experts, test_layouts
from tests.training.backends.layouts import FAMILIES, ROWS, agree, differences, settings, two_steps
from tests.training.backends.scenario import BATCH, dataset, whole
from tests.training.tiny import tiny_model

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
LIMIT = 2e-6
"""Rounding of fp32; the documented bound is 1e-5."""

LAYOUTS = {**test_layouts.LAYOUTS, **test_context.LAYOUTS, **test_experts.LAYOUTS}
TENSOR = [name for name, layout in LAYOUTS.items() if layout.tensor > 1 and layout.expert == 1]
FEW = ("tp2", "dp2 x tp2+sp")
EXPERT = [name for name, layout in LAYOUTS.items() if layout.expert > 1]

KINDS = {
    "lora": AdapterSpec(dim=4, alpha=8),
    "dora": AdapterSpec(dim=4, alpha=8, decomposed=True),
    "rslora on some layers": AdapterSpec(
        dim=3, alpha=8, rank_stabilised=True, initial="uniform", targets=("*.1.*.q_proj", "o_proj", "linear_fc2")
    ),
}

CASES = [
    *((family, "lora", layout) for family in ("llama", "qwen3") for layout in TENSOR),
    *((family, "dora", layout) for family in ("llama", "phi3") for layout in TENSOR),
    *((family, kind, layout) for family in TENSOR_PARALLEL_FAMILIES for kind in ("lora", "dora") for layout in FEW),
    *(("llama", "rslora on some layers", layout) for layout in ("tp2", "dp2 x tp2+sp")),
    *((family, "lora", layout) for family in EXPERT_PARALLEL_FAMILIES for layout in EXPERT),
    *((family, "dora", layout) for family in EXPERT_PARALLEL_FAMILIES for layout in ("ep2", "dp4, ep2")),
]
ALWAYS = {
    *(("llama", "lora", layout) for layout in TENSOR),
    *(("llama", "dora", layout) for layout in ("dp2 x tp2+sp", "cp2 x tp2")),
    *((family, "lora", "dp2 x tp2+sp") for family in ("gemma2", "gpt_oss")),
    *((family, "dora", "tp2") for family in TENSOR_PARALLEL_FAMILIES if family not in ("mistral", "gemma")),
    *(("gpt_oss", "lora", layout) for layout in ("ep2", "dp2 x cp2, ep4", "dp2 x tp2+sp, ep2", "cp2 x tp2+sp, ep2")),
    ("llama", "rslora on some layers", "dp2 x tp2+sp"),
    ("qwen3_moe", "lora", "dp4, ep2"),
}
"""The others are left to exhaustive tests."""

QUICK = [("llama", "lora", "tp2"), ("llama", "dora", "tp2+sp"), ("phi3", "dora", "tp2"), ("gpt_oss", "dora", "ep2")]


def changes(kind: str, **more: Any) -> dict[str, Any]:
    """Settings of the backend. Gradients are clipped, so that their norm matters."""
    return {"adapters": KINDS[kind], "max_grad_norm": 0.005, **more}


@pytest.fixture(scope="module")
def alone():
    """What one process finds, by family and kind of adapters."""
    found: dict[tuple[str, str], dict[str, Any]] = {}

    def of(family: str, kind: str) -> dict[str, Any]:
        if (family, kind) not in found:
            found[family, kind] = two_steps(ALONE, family=family, changes=changes(kind))
        return found[family, kind]

    return of


def check(found: list[dict[str, Any]], expected: Mapping[str, Any]) -> None:
    wrong = {name: value for name, value in differences(found[0], expected).items() if not value <= LIMIT}
    assert not wrong
    assert expected["gradients"] and all(".lora_" in name for name in expected["gradients"])
    assert min(expected["norms"]) > 0.005, "they were clipped"
    assert agree(found)


@pytest.mark.parametrize(("family", "kind", "layout"), QUICK)
def test_two_ranks_find_what_one_process_does(two_ranks, alone, family, kind, layout):
    check(two_ranks(two_steps, family=family, layout=LAYOUTS[layout], changes=changes(kind)), alone(family, kind))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "kind", "layout"),
    [
        pytest.param(*case, marks=() if case in ALWAYS else pytest.mark.exhaustive)
        for case in sorted({*CASES} - {*QUICK})
    ],
)
def test_two_steps_are_those_of_one_process(request, alone, family, kind, layout):
    ranks = request.getfixturevalue("two_ranks" if LAYOUTS[layout].ranks == 2 else "four_ranks")

    found = ranks(two_steps, family=family, layout=LAYOUTS[layout], changes=changes(kind))

    check(found, alone(family, kind))


def unsummed_gradients(world: World, **arguments: Any) -> dict[str, Any]:
    """What a rank knows of the gradient of a matrix that is whole on all of them is taken for all of it."""
    right = adapted.own_part
    adapted.own_part = lambda parameter, **_: right(parameter)
    try:
        return two_steps(world, **arguments)
    finally:
        adapted.own_part = right


def lengths_of_own_inputs(world: World, **arguments: Any) -> dict[str, Any]:
    right = adapted.RowLora._squares_over_inputs
    adapted.RowLora._squares_over_inputs = lambda self, squares: squares
    try:
        return two_steps(world, **arguments)
    finally:
        adapted.RowLora._squares_over_inputs = right


def bias_on_every_rank(world: World, **arguments: Any) -> dict[str, Any]:
    right = adapted.RowLora._matrices
    adapted.RowLora._matrices = lambda self: replace(right(self), bias=layers.own_part(self.bias))
    try:
        return two_steps(world, **arguments)
    finally:
        adapted.RowLora._matrices = right


@pytest.mark.parametrize(
    ("fault", "kind", "layout", "where"),
    [
        (unsummed_gradients, "lora", "tp2", ["losses and norms", "q_proj.lora_A", "o_proj.lora_B"]),
        (unsummed_gradients, "dora", "tp2+sp", ["up_proj.lora_A", "down_proj.lora_B", "o_proj.lora_magnitude_vector"]),
        (lengths_of_own_inputs, "dora", "tp2", ["losses and norms"]),
        (bias_on_every_rank, "lora", "tp2", ["losses and norms"]),
    ],
)
def test_the_comparison_sees(two_ranks, alone, fault, kind, layout, where):
    found = two_ranks(fault, family="llama", layout=LAYOUTS[layout], changes=changes(kind))[0]

    wrong = " ".join(name for name, value in differences(found, alone("llama", kind)).items() if value > 1e-4)
    assert all(part in wrong for part in where)


def started(world: World, *, layout: Layout | None, seed: int = 3, family: str = "llama") -> dict[str, torch.Tensor]:
    """The first values of adapters, whole."""
    made = settings(adapters=KINDS["dora"], seed=seed, layout=layout)
    backend = FsdpBackend(tiny_model(family, **FAMILIES[family]), made, world)
    named = backend.trainee.model.named_parameters()
    return {name: whole(value.detach()) for name, value in named if value.requires_grad}


@pytest.mark.parametrize("layout", ["tp2", "dp2 x tp2+sp"])
def test_the_first_values_are_those_of_one_process(request, layout):
    ranks = request.getfixturevalue("two_ranks" if LAYOUTS[layout].ranks == 2 else "four_ranks")
    expected, other = started(ALONE, layout=None), started(ALONE, layout=None, seed=4)

    for found in ranks(started, layout=LAYOUTS[layout]):
        assert found.keys() == expected.keys()
        for name, value in found.items():
            if "magnitude" in name:
                # Sums of squares in another order.
                torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=0)
            else:
                assert torch.equal(value, expected[name]), name
            assert torch.equal(expected[name], other[name]) == ("lora_A" not in name), "another seed would be seen"


def placed(world: World, *, layout: Layout) -> dict[str, Any]:
    model = FsdpBackend(tiny_model("llama"), settings(layout=layout, adapters=KINDS["dora"]), world).trainee.model
    learned = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return {
        "meshes": len({parameter.device_mesh for parameter in model.parameters()}),
        "whole": {
            name.split(".", 3)[-1] for name, value in learned.items() if isinstance(value.placements[-1], Replicate)
        },
    }


def test_of_each_pair_of_matrices_one_is_whole_on_every_rank(two_ranks):
    found = two_ranks(placed, layout=LAYOUTS["tp2"])[0]

    assert found["meshes"] == 1, "the optimizer and clipping take all parameters together"
    columns = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
    rows = ("self_attn.o_proj", "mlp.down_proj")
    of_rows = {f"{name}.{part}.weight" for name in rows for part in ("lora_B", "lora_magnitude_vector")}
    assert found["whole"] == {f"{name}.lora_A.weight" for name in columns} | of_rows


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["full", "selective"])
def test_recomputed_activations_and_gradients_exchanged_each_time_change_nothing(four_ranks, alone, granularity):
    more = {"activation_checkpointing": True, "recompute_granularity": granularity, "defer_grad_sync": False}
    found = four_ranks(two_steps, family="qwen3", layout=LAYOUTS["dp2 x tp2+sp"], changes=changes("dora", **more))

    check(found, alone("qwen3", "dora"))


@pytest.mark.slow
def test_half_precision_is_close(four_ranks):
    half = {"family": "qwen3", "changes": changes("dora", dtype=torch.bfloat16)}
    found = four_ranks(two_steps, layout=LAYOUTS["dp2 x tp2+sp"], **half)[0]

    relative = differences(found, two_steps(ALONE, **half))
    assert relative["losses and norms"] < 3e-2
    assert max(value for name, value in relative.items() if name.startswith("weights")) < 5e-2


def untrained(world: World, *, layout: Layout) -> tuple[float, float]:
    """What fresh DoRA adapters and the model without any compute on the same rows in bfloat16."""
    here = replace(world, same_rows=layout.same_rows)
    batch = split_batch(dataset(), range(BATCH), ROWS, here.data_rank, here.data_size)
    half = settings(dtype=torch.bfloat16, layout=layout)
    fresh, base = (
        FsdpBackend(tiny_model("llama"), replace(half, adapters=spec), here) for spec in (KINDS["dora"], None)
    )
    assert len(adapted_modules(fresh.trainee.model)) == 14
    return fresh.evaluate(batch.microbatches), base.evaluate(batch.microbatches)


@pytest.mark.parametrize("layout", ["tp2", "tp2+sp"])
def test_fresh_dora_in_bfloat16_is_the_base_model_bit_for_bit(two_ranks, layout):
    for fresh, base in two_ranks(untrained, layout=LAYOUTS[layout]):
        assert fresh == base


def dropping(world: World) -> str:
    spec = replace(KINDS["lora"], dropout=0.1)
    try:
        FsdpBackend(tiny_model("llama"), settings(layout=LAYOUTS["tp2"], adapters=spec), world)
    except ValueError as error:
        return str(error)
    return "accepted"


def test_dropout_of_ranks_that_share_a_layer_is_an_error(two_ranks):
    assert set(two_ranks(dropping)) == {"ranks that share a layer would each drop out something else"}
