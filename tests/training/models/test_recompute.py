"""What is computed twice to keep less: the same bits, the costly operations once, and less memory."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from skills_pipe.training.config.estimate import ModelShape, activation_bytes
from skills_pipe.training.models.loss import SupervisedLoss
from skills_pipe.training.models.recompute import recompute_layers
from tests.training.models.test_attention import packed_row
from tests.training.tiny import ARCHITECTURES, tiny_model

LENGTHS = (60, 80, 116)
PRODUCTS = ("aten.mm", "aten.addmm", "aten._grouped_mm", "aten._scaled_dot_product")


class Operations(TorchDispatchMode):
    """Counts what is computed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.counts[str(operation)] += 1
        return operation(*args, **(kwargs or {}))

    def products(self, names=PRODUCTS) -> int:
        return sum(count for name, count in self.counts.items() if name.startswith(names))


def step(architecture, granularity=None, **changes):
    """Loss, gradients, operations of the backward pass, and bytes that the forward pass leaves behind."""
    model = tiny_model(architecture, **changes).train()
    if granularity is not None:
        recompute_layers(model, granularity)
    loss = SupervisedLoss(model)
    ids, positions, documents = packed_row(LENGTHS)
    torch.manual_seed(0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as forward:
        value = loss(ids, positions, ids.roll(-1, 1), documents, scale=1 / 256)
    with Operations() as backward:
        value.backward()
    kept = sum(event.self_cpu_memory_usage for event in forward.key_averages())
    return value.item(), [parameter.grad for parameter in model.parameters()], backward, kept


@pytest.mark.parametrize("granularity", ["full", "selective"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_have_the_bits_of_those_without_it(architecture, granularity):
    loss, gradients, *_ = step(architecture)
    found, recomputed, *_ = step(architecture, granularity)

    assert found == loss
    assert all(torch.equal(one, other) for one, other in zip(recomputed, gradients, strict=True))


def test_dropout_is_the_same_again_and_other_dropout_would_be_noticed():
    dropped = {"attention_dropout": 0.3}
    loss, gradients, *_ = step("llama", **dropped)
    found, recomputed, *_ = step("llama", "selective", **dropped)

    assert found == loss
    assert all(torch.equal(one, other) for one, other in zip(recomputed, gradients, strict=True))
    assert step("llama")[0] != loss


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_products_and_attention_are_computed_once_only_where_they_are_kept(architecture):
    once, twice, kept = (step(architecture, granularity) for granularity in (None, "full", "selective"))

    # Experts of gpt-oss add their biases in place, so that their products cannot be kept.
    names = tuple(name for name in PRODUCTS if architecture != "gpt_oss" or name != "aten._grouped_mm")
    assert kept[2].products(names) == once[2].products(names) < twice[2].products(names)
    assert kept[2].counts.total() > once[2].counts.total()
    assert twice[3] < kept[3] < 0.7 * once[3]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_kept_besides_is_what_the_estimate_counts(architecture):
    shape = ModelShape.of(tiny_model(architecture).config.to_dict())
    less, more = (
        activation_bytes(shape, sum(LENGTHS), width=4, recompute=granularity) for granularity in ("full", "selective")
    )

    measured = step(architecture, "selective")[3] - step(architecture, "full")[3]

    assert measured == pytest.approx(more - less, rel=0.05)
