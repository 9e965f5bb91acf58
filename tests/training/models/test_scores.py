"""Capped scores and sinks: equal to transformers' own attention, in blocks of any size, with fewer queries too."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.gemma2.modeling_gemma2 import eager_attention_forward as gemma2_attention
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward as gpt_oss_attention

from skills_pipe.training.models import scores
from skills_pipe.training.models.scores import Scores, attend_by_scores, visible

HEADS, KEYS, WIDTH = 4, 2, 8
CPU = torch.device("cpu")


def states(looking: int, tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * looking + tokens)
    shapes = [(1, HEADS, looking, WIDTH), (1, KEYS, tokens, WIDTH), (1, KEYS, tokens, WIDTH)]
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes)


def transformers_own(query: Tensor, key: Tensor, value: Tensor, layer: Scores) -> Tensor:
    """Through the attention function of Gemma 2, or of gpt-oss where there are sinks."""
    module = SimpleNamespace(
        num_key_value_groups=HEADS // KEYS, head_dim=WIDTH, training=False, sinks=layer.sinks, scaling=layer.scaling
    )
    seen = visible(query.shape[2], key.shape[2], layer.window, CPU)
    mask = torch.zeros(seen.shape, dtype=query.dtype).masked_fill(~seen, -torch.inf)[None, None]
    scaling = layer.scaling or WIDTH**-0.5
    if layer.sinks is not None:
        return gpt_oss_attention(module, query, key, value, mask, scaling=scaling)[0].transpose(1, 2)
    return gemma2_attention(module, query, key, value, mask, scaling=scaling, softcap=layer.softcap)[0].transpose(1, 2)


def layer_of(kind: str, window: int | None) -> Scores:
    if kind == "capped":
        return Scores(softcap=0.7, scaling=0.5, window=window)
    return Scores(sinks=torch.linspace(-1, 2, HEADS, dtype=torch.float64).requires_grad_(), window=window)


@st.composite
def documents(draw) -> tuple[int, int]:
    tokens = draw(st.integers(1, 40))
    return draw(st.integers(1, tokens)), tokens


@settings(deadline=None, max_examples=60)
@given(documents(), st.sampled_from(["capped", "sinks"]), st.none() | st.integers(1, 50), st.sampled_from([1, 7, 512]))
def test_values_and_gradients_are_those_of_transformers(sizes, kind, window, block):
    tensors, layer = states(*sizes), layer_of(kind, window)
    differentiated = [*tensors, *([layer.sinks] if layer.sinks is not None else [])]
    before, scores._BLOCK = scores._BLOCK, block
    try:
        ours = attend_by_scores(*tensors, layer)
        gradients = torch.autograd.grad((ours * ours.detach().cos()).sum(), differentiated)
    finally:
        scores._BLOCK = before
    theirs = transformers_own(*tensors, layer)

    # Their softmax is in fp32 where ours is in fp64.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    expected = torch.autograd.grad((theirs * theirs.detach().cos()).sum(), differentiated)
    for mine, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", ["capped", "sinks"])
def test_gradients_are_those_of_finite_differences(kind):
    layer = layer_of(kind, 4)

    def attended(query, key, value, sinks):
        return attend_by_scores(query, key, value, Scores(**{**vars(layer), "sinks": sinks}))

    assert torch.autograd.gradcheck(attended, (*states(5, 9), layer.sinks))


@pytest.mark.parametrize(
    ("kind", "without"), [("capped", Scores(scaling=0.5)), ("sinks", Scores()), ("sinks", Scores(window=3))]
)
def test_the_comparison_sees_what_is_left_out(kind, without):
    tensors = states(12, 12)

    difference = attend_by_scores(*tensors, without) - transformers_own(*tensors, layer_of(kind, without.window))

    assert difference.abs().max() > 1e-2


def test_the_scores_of_a_long_document_are_never_there_at_once():
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attend_by_scores(*states(1200, 1200), layer_of("capped", None))
    blocks = max(kept)
    kept.clear()
    before, scores._BLOCK = scores._BLOCK, 2000
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            attend_by_scores(*states(1200, 1200), layer_of("capped", None))
    finally:
        scores._BLOCK = before

    assert max(kept) == HEADS * 1200 * 1200
    assert blocks < max(kept) / 50


def test_weights_are_dropped_as_often_as_asked():
    torch.manual_seed(0)
    query, key, _ = states(300, 300)
    value = torch.ones(1, KEYS, 300, WIDTH, dtype=torch.float64)

    kept = attend_by_scores(query, key, value, Scores(softcap=5.0, dropout=0.25))

    assert kept.std() > 0.02
    assert kept.mean().item() == pytest.approx(1.0, abs=0.02)
