"""How experts are used: counts of every layout of ranks are those of the plain model, document by document."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import pytest
import torch

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.config.parallel import EXPERT_PARALLEL_FAMILIES, Layout
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models import expert_load, loss
from skills_pipe.training.models.expert_load import ROUTERS, load_metrics
from skills_pipe.training.sft import main
from tests.training.backends.layouts import MIXTURES, ROWS, settings
from tests.training.backends.scenario import dataset
from tests.training.backends.test_experts import ALONE, ALWAYS, LAYOUTS
from tests.training.outputs import logged
from tests.training.sft_arguments import arguments
from tests.training.tiny import save_tiny_model, tiny_model

DOCUMENTS = 7
"""Fewer than microbatches where four ranks each want one of a single document."""


def model_of(family: str) -> torch.nn.Module:
    """As it begins: with biases of any size all tokens of a tiny gpt-oss choose the same experts."""
    return tiny_model(family, **MIXTURES[family])


def by_transformers(family: str) -> torch.Tensor:
    """Counts by the logits that the model itself gives of each document alone, without anything of ours."""
    model, data, found = model_of(family).eval(), dataset(), 0
    for index in range(DOCUMENTS):
        ids = torch.from_numpy(data[index].input_ids).long()[None]
        with torch.no_grad():
            logits = model(ids, output_router_logits=True).router_logits
        chosen = torch.stack([each.topk(3, dim=-1).indices.flatten() for each in logits])
        found = found + torch.nn.functional.one_hot(chosen, 8).sum(dim=1)
    return found


@pytest.fixture(scope="module")
def expected():
    return {family: by_transformers(family) for family in MIXTURES}


def counted(
    world: World,
    *,
    family: str,
    layout: Layout | None = None,
    changes: Mapping[str, Any] | None = None,
    rows: BatchSettings = ROWS,
) -> dict[str, Any]:
    """What two steps on the same documents tell; the weights do not change. An evaluation lies between them."""
    layout = layout or Layout(shard=world.size)
    here = World(rank=world.rank, size=world.size, device=world.device, same_rows=layout.same_rows)
    backend = FsdpBackend(model_of(family), settings(layout=layout, **(changes or {})), here)
    seen = []
    for _ in range(2):
        batch = split_batch(dataset(), range(DOCUMENTS), rows, here.data_rank, here.data_size)
        result = backend.train_step(batch.microbatches, targets=batch.global_weight, judge=lambda *_: "only asked")
        seen.append((backend._choices(backend._load), dict(result.metrics)))
        backend.evaluate(batch.microbatches)
    (counts, metrics), again = seen
    assert torch.equal(counts, again[0]) and metrics == again[1], "each step begins at zero"
    dummies = sum(microbatch.dummy for microbatch in batch.microbatches)
    return {"counts": counts, "metrics": metrics, "dummies": dummies, "names": list(backend.trainee.model.state_dict())}


def check(found: list[dict[str, Any]], expected: torch.Tensor) -> None:
    for each in found:
        assert each["counts"].tolist() == expected.tolist()
        assert each["metrics"] == of_counts(expected.tolist())


def of_counts(counts: list[list[int]]) -> dict[str, float]:
    """By the sentences of docs/training.md."""
    worst = [max(layer) / (sum(layer) / len(layer)) for layer in counts]
    return {
        "train/moe/load_imbalance": pytest.approx(max(worst)),
        "train/moe/mean_load_imbalance": pytest.approx(sum(worst) / len(worst)),
        "train/moe/unused_experts": sum(layer.count(0) for layer in counts),
    }


@pytest.mark.parametrize("family", MIXTURES)
def test_one_process_counts_what_the_plain_model_chooses(expected, family):
    tokens = sum(len(dataset()[index].input_ids) for index in range(DOCUMENTS))
    assert expected[family].sum(dim=1).tolist() == [3 * tokens, 3 * tokens], "three experts for each token"
    assert len(set(expected[family].flatten().tolist())) > 8, "no two counts are exchanged unseen"
    check([counted(ALONE, family=family)], expected[family])


@pytest.mark.parametrize("granularity", ["full", "selective"])
@pytest.mark.parametrize("family", MIXTURES)
def test_what_is_computed_again_counts_once(expected, family, granularity):
    changes = {"activation_checkpointing": True, "recompute_granularity": granularity}
    check([counted(ALONE, family=family, changes=changes)], expected[family])


def test_a_second_backend_counts_for_itself(expected):
    model = model_of("qwen3_moe")
    first, second = (FsdpBackend(model, settings(), ALONE) for _ in range(2))
    batch = split_batch(dataset(), range(DOCUMENTS), ROWS, 0, 1)
    second.train_step(batch.microbatches, targets=batch.global_weight)
    assert second._load.counts.tolist() == expected["qwen3_moe"].tolist()
    assert not first._load.counts.any()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"activation_checkpointing": True}])
def test_compiled_layers_count_the_same(expected, changes):
    check([counted(ALONE, family="qwen3_moe", changes={"compile": True, **changes})], expected["qwen3_moe"])


@pytest.mark.parametrize("family", MIXTURES)
@pytest.mark.parametrize("layout", [name for name, layout in LAYOUTS.items() if layout.ranks == 2])
def test_two_ranks_count_each_token_once(two_ranks, expected, family, layout):
    changes = {"activation_checkpointing": True}
    check(two_ranks(counted, family=family, layout=LAYOUTS[layout], changes=changes), expected[family])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "layout"),
    [
        pytest.param(family, name, marks=() if name in ALWAYS[family] else pytest.mark.exhaustive)
        for family in MIXTURES
        for name, layout in LAYOUTS.items()
        if layout.ranks == 4
    ],
)
def test_four_ranks_count_each_token_once(four_ranks, expected, family, layout):
    check(four_ranks(counted, family=family, layout=LAYOUTS[layout]), expected[family])


ONE_BY_ONE = BatchSettings(capacity=61, packing=False)


def test_the_token_of_a_rank_without_documents_is_none(two_ranks, expected):
    found = two_ranks(counted, family="qwen3_moe", rows=ONE_BY_ONE)
    assert sum(each["dummies"] for each in found) == 1
    check(found, expected["qwen3_moe"])


def test_nothing_more_is_saved(expected):
    plain = list(model_of("qwen3_moe").state_dict())
    assert counted(ALONE, family="qwen3_moe")["names"] == plain


# What the comparison sees


@contextmanager
def left_open(tokens: torch.Tensor | None) -> Iterator[None]:
    """Counting does not end with the forward pass."""
    if tokens is not None:
        expert_load._counted.set(tokens.flatten())
    yield


@contextmanager
def of_all(tokens: torch.Tensor | None) -> Iterator[None]:
    """What only makes rows longer counts."""
    with expert_load.counting(torch.ones_like(tokens) if tokens is not None else None):
        yield


def counted_otherwise(world: World, *, fault: Callable[..., Any], **arguments: Any) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(loss, "counting", fault)
        return copy_context().run(counted, world, **arguments)


def counted_by_everyone(world: World, **arguments: Any) -> dict[str, Any]:
    """Ranks that have the same tokens all count them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FsdpBackend, "_first_of_same_tokens", True)
        return counted(world, **arguments)


def test_recomputed_choices_would_be_seen(expected):
    one_row, changes = BatchSettings(capacity=1000), {"activation_checkpointing": True}
    found = counted_otherwise(ALONE, fault=left_open, family="qwen3_moe", changes=changes, rows=one_row)
    assert found["counts"].tolist() == (2 * expected["qwen3_moe"]).tolist()


def test_tokens_of_two_ranks_would_be_seen(two_ranks, expected):
    found = two_ranks(counted_by_everyone, family="gpt_oss", layout=LAYOUTS["tp2+sp"])[0]
    assert found["counts"].tolist() == (2 * expected["gpt_oss"]).tolist()


def test_what_makes_rows_longer_would_be_seen(two_ranks, expected):
    found = two_ranks(counted_otherwise, fault=of_all, family="qwen3_moe", layout=LAYOUTS["cp2, ep2"])[0]
    assert found["counts"].sum() > expected["qwen3_moe"].sum()


# In a training, and numbers


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("family", ["qwen3_moe", "llama"])
def test_each_step_of_a_training_tells_it_of_models_with_experts(chat_data, tmp_path, family):
    model = save_tiny_model(tmp_path / "model", family, **MIXTURES.get(family, {}))
    extra = ["sft.max_num_steps=3", "checkpointing.enabled=false"]
    assert main(arguments(model, chat_data, tmp_path, *extra)) == 0
    for name, least, most in (("load_imbalance", 1, 8), ("mean_load_imbalance", 1, 8), ("unused_experts", 0, 16)):
        found = logged(tmp_path, f"train/moe/{name}")
        assert list(found) == ([1, 2, 3] if family in MIXTURES else [])
        assert all(least <= value <= most for value in found.values())


def test_models_without_experts_tell_nothing():
    backend = FsdpBackend(tiny_model("llama"), settings(), ALONE)
    batch = split_batch(dataset(), range(DOCUMENTS), ROWS, 0, 1)
    assert backend._load is None
    assert backend.train_step(batch.microbatches, targets=batch.global_weight).metrics == {}


def test_the_numbers_of_a_known_load():
    counts = torch.tensor([[4, 4, 4, 4], [0, 2, 2, 12]])
    assert load_metrics(counts) == {
        "train/moe/load_imbalance": 3.0,
        "train/moe/mean_load_imbalance": 2.0,
        "train/moe/unused_experts": 1.0,
    }
    assert load_metrics(torch.zeros_like(counts)) == {}


def test_routers_of_all_families_with_experts_are_known():
    assert set(ROUTERS) == set(EXPERT_PARALLEL_FAMILIES)
