"""Attention of short bf16 documents on CPUs: as near to exact arithmetic as torch's own kernel in bf16."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from skills_pipe.training.models import attention
from skills_pipe.training.models.attention import Documents, packed_attention
from skills_pipe.training.models.short_attention import LONGEST, SHORTEST, short_attention


def fused(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, *, is_causal: bool = True) -> Tensor:
    return scaled_dot_product_attention(query, key, value, is_causal=is_causal, scale=scaling, enable_gqa=True)


def results(attend, inputs, slope, dtype, scaling=None):
    """The output and the three gradients."""
    leaves = [entry.to(dtype).requires_grad_() for entry in inputs]
    output = attend(*leaves, scaling)
    return [output.detach(), *torch.autograd.grad(output, leaves, slope.to(dtype))]


def problem(heads, kv_heads, tokens, width=16):
    generator = torch.Generator().manual_seed(tokens)
    shapes = [(1, heads, tokens, width), *[(1, kv_heads, tokens, width)] * 2, (1, heads, tokens, width)]
    *inputs, slope = (torch.randn(shape, generator=generator).bfloat16() for shape in shapes)
    return inputs, slope


def errors(found, exact):
    pairs = zip(found, exact, strict=True)
    return [float((ours.double() - true).norm() / true.norm()) for ours, true in pairs]


@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 3), (4, 1)])
@pytest.mark.parametrize("tokens", [1, SHORTEST, 133, LONGEST])
def test_output_and_gradients_are_exact_but_for_the_rounding_of_bf16(heads, kv_heads, tokens, scaling):
    inputs, slope = problem(heads, kv_heads, tokens)
    exact = results(fused, inputs, slope, torch.float64, scaling)

    found = results(short_attention, inputs, slope, torch.bfloat16, scaling)

    # With one token there is nothing to choose from: these gradients are 0 in exact arithmetic.
    measured = (0, 3) if tokens == 1 else (0, 1, 2, 3)
    assert all(errors(found, exact)[index] < 0.008 for index in measured)


def test_attention_that_looks_ahead_is_seen_by_the_same_comparison():
    inputs, slope = problem(6, 3, 133)
    exact = results(fused, inputs, slope, torch.float64)

    found = results(lambda *given: fused(*given, is_causal=False), inputs, slope, torch.bfloat16)

    assert min(errors(found, exact)) > 0.1


def test_packed_documents_of_every_length_are_what_each_is_alone():
    lengths = (3, SHORTEST, 200, LONGEST + 1)
    inputs, _ = problem(4, 2, sum(lengths))
    documents = Documents.of(torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32))

    packed, _ = packed_attention(torch.nn.Module(), *inputs, None, documents=documents)

    alone = [fused(*part, None) for part in zip(*(entry.double().split(lengths, 2) for entry in inputs), strict=True)]
    exact = torch.cat(alone, dim=2).transpose(1, 2)
    assert packed.dtype == torch.bfloat16 and packed.is_contiguous()
    assert (packed.double() - exact).norm() / exact.norm() < 0.004


@pytest.mark.parametrize(
    ("tokens", "dtype", "options", "expected"),
    [
        (SHORTEST, torch.bfloat16, {}, True),
        (SHORTEST - 1, torch.bfloat16, {}, False),
        (LONGEST + 1, torch.bfloat16, {}, False),
        (SHORTEST, torch.float32, {}, False),
        (SHORTEST, torch.bfloat16, {"dropout": 0.1}, False),
        (SHORTEST, torch.bfloat16, {"sliding_window": SHORTEST}, True),
        (SHORTEST, torch.bfloat16, {"sliding_window": SHORTEST - 1}, False),
    ],
)
def test_it_is_used_for_what_it_can_do(tokens, dtype, options, expected, monkeypatch):
    used = []
    monkeypatch.setattr(attention, "short_attention", lambda *given: used.append(given) or short_attention(*given))
    inputs, _ = problem(4, 2, tokens)
    documents = Documents.of(torch.tensor([0, tokens], dtype=torch.int32))

    packed_attention(torch.nn.Module(), *(entry.to(dtype) for entry in inputs), None, documents=documents, **options)

    assert bool(used) is expected
