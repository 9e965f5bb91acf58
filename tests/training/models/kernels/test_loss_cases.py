"""A kernel for the loss is believed when it computes what ours does; each kind of fault is seen."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from skills_pipe.training.models.kernels.agreement import disagreement
from skills_pipe.training.models.kernels.loss_cases import LossCase, loss_cases, ours
from tests.training.models.kernels.documented import OtherGradient
from tests.training.tiny import tiny_model

CPU = torch.device("cpu")
PRECISIONS = [torch.bfloat16, torch.float32]
SHAPES = {"small": ((264, 32), None), "wide": ((3000, 256), None), "capped": ((3000, 256), 30.0)}


def plain(hidden, weight, labels, *, scale, softcap=None):
    """By torch, all logits at once."""
    logits = hidden @ weight.T
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return cross_entropy(logits, labels, reduction="sum") * scale


def summed_in_half(hidden, weight, labels, *, scale, softcap=None):
    exact = ours(hidden, weight, labels, scale=scale, softcap=softcap)
    return exact + (exact.bfloat16().float() - exact).detach()


def told_in_half(hidden, weight, labels, *, scale, softcap=None):
    return ours(hidden, weight, labels, scale=scale, softcap=softcap).bfloat16()


def without_a_cap(hidden, weight, labels, *, scale, softcap=None):
    return ours(hidden, weight, labels, scale=scale)


def another_scale(hidden, weight, labels, *, scale, softcap=None):
    return ours(hidden, weight, labels, scale=1.0, softcap=softcap)


def trains_a_token_that_is_none(hidden, weight, labels, *, scale, softcap=None):
    """As one would that does not leave out what is not to be trained."""
    more = torch.cat([hidden, hidden[:1].detach()]), weight, torch.cat([labels, labels[:1]])
    return ours(*more, scale=scale, softcap=softcap)


def mean(hidden, weight, labels, *, scale, softcap=None):
    return ours(hidden, weight, labels, scale=scale / len(labels), softcap=softcap)


def wrong_gradient_of_the_weight(hidden, weight, labels, *, scale, softcap=None):
    return ours(hidden, OtherGradient.apply(weight), labels, scale=scale, softcap=softcap)


def wrong_gradient_of_hidden_states(hidden, weight, labels, *, scale, softcap=None):
    return ours(OtherGradient.apply(hidden), weight, labels, scale=scale, softcap=softcap)


def against(loss, dtype=torch.bfloat16, sizes="wide"):
    shape, softcap = SHAPES[sizes]
    return disagreement(loss, ours, [LossCase.of(shape, softcap, dtype, CPU)], dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("loss", [ours, plain])
def test_ours_and_that_of_torch_agree(loss, sizes, dtype):
    assert against(loss, dtype, sizes) is None


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("loss", "where"),
    [
        (another_scale, "loss"),
        (trains_a_token_that_is_none, "loss"),
        (mean, "loss"),
        (wrong_gradient_of_the_weight, "gradient of the output layer"),
        (wrong_gradient_of_hidden_states, "gradient of hidden states"),
    ],
)
@pytest.mark.parametrize("sizes", SHAPES)
def test_what_computes_something_else_is_seen(loss, where, sizes, dtype):
    assert f"in the {where} of some tokens" in against(loss, dtype, sizes)


@pytest.mark.parametrize("sizes", SHAPES)
def test_a_loss_that_was_summed_in_half_precision_is_seen(sizes):
    assert "in the loss of some tokens" in against(summed_in_half, sizes=sizes)
    assert against(told_in_half, sizes=sizes) == "cannot be tried: the loss is summed in torch.bfloat16"


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_cap_that_is_left_out_is_seen_where_there_is_one(dtype):
    assert "is off by" in against(without_a_cap, dtype, "capped")
    assert against(without_a_cap, dtype, "wide") is None


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_the_sizes_are_those_of_the_model(architecture):
    model = tiny_model(architecture)
    (case,) = loss_cases(model, torch.bfloat16, CPU)
    assert case.weight.shape == model.get_output_embeddings().weight.shape
    assert case.softcap == getattr(model.config, "final_logit_softcapping", None)
    assert (case.softcap is not None) == (architecture == "gemma2")


def test_of_a_wide_model_all_words_are_tried_in_a_part_of_the_width(monkeypatch):
    model = tiny_model("llama")
    vocabulary, width = model.get_output_embeddings().weight.shape
    monkeypatch.setattr("skills_pipe.training.models.kernels.loss_cases._WIDTH", width // 2)
    (case,) = loss_cases(model, torch.bfloat16, CPU)
    assert case.weight.shape == (vocabulary, width // 2)
    assert case.hidden.shape[1] == width // 2
