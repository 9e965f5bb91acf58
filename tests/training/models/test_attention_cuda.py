"""The fused kernel of GPUs beside each document alone in float32 on the host, forward and backward."""

from __future__ import annotations

import pytest
import torch

from skills_pipe.training.models import attention
from skills_pipe.training.models.scores import Scores

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LOOKING, SEEN = (5, 129, 1, 64), (5, 129, 40, 200)
"""Tokens of each document that look, and that are looked at: where ranks share a row, fewer look."""
HEADS, KV_HEADS, HEAD_DIM = 8, 2, 64
ROUNDING = 2e-2
"""Of bfloat16, which has 8 bits, on values and gradients of the size of one."""


def offsets(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def attended(device, dtype, looking, settings):
    """Output, and gradients of queries, keys and values, as float32 on the host."""
    generator = torch.Generator().manual_seed(5)
    shapes = ((HEADS, sum(looking)), (KV_HEADS, sum(SEEN)), (KV_HEADS, sum(SEEN)))
    made = [torch.randn(1, heads, tokens, HEAD_DIM, generator=generator) for heads, tokens in shapes]
    # The host computes with what the device sees.
    tensors = tuple(each.to(torch.bfloat16).to(device, dtype).requires_grad_() for each in made)
    ends = tuple(offsets(lengths).to(device) for lengths in (looking, SEEN))
    output = attention._attend(tensors, (looking, SEEN), ends, settings)
    output.float().square().sum().backward()
    return [output.detach().float().cpu(), *(each.grad.float().cpu() for each in tensors)]


@pytest.mark.parametrize("window", [None, 16], ids=["whole documents", "windows"])
@pytest.mark.parametrize("looking", [SEEN, LOOKING], ids=["all look", "the last look"])
def test_the_kernel_is_attention_of_each_document(looking, window):
    settings = Scores(window=window)
    found = attended("cuda", torch.bfloat16, looking, settings)
    expected = attended("cpu", torch.float32, looking, settings)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.dist(mine, theirs) <= ROUNDING * theirs.norm()
    # The control: another window would be seen.
    other = attended("cpu", torch.float32, looking, Scores(window=8))
    assert torch.dist(found[0], other[0]) > 5 * ROUNDING * other[0].norm()


def test_capped_scores_and_sinks_are_the_same_on_a_gpu():
    sinks = torch.linspace(-1, 1, HEADS)
    on_host, on_gpu = (Scores(softcap=5.0, sinks=sinks.to(device)) for device in ("cpu", "cuda"))
    found = attended("cuda", torch.bfloat16, SEEN, on_gpu)
    for mine, theirs in zip(found, attended("cpu", torch.float32, SEEN, on_host), strict=True):
        assert torch.dist(mine, theirs) <= ROUNDING * theirs.norm()
