"""Kernels of GPUs: those that are installed agree with ours there, are taken, and train as ours does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.trials import KernelWarning, tried_loss
from skills_pipe.training.distributed import World
from skills_pipe.training.models.attention import attend
from skills_pipe.training.models.kernels import varlen
from skills_pipe.training.models.kernels.agreement import disagreement
from skills_pipe.training.models.kernels.attention_cases import Attention
from skills_pipe.training.models.scores import Scores
from tests.training.backends.scenario import SCENARIOS
from tests.training.tiny import tiny_model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

LOOKING, SEEN = (5, 129, 1, 64), (5, 129, 40, 200)
"""Tokens of each document that look, and that are looked at: where ranks share a row, fewer look."""
HEADS, KV_HEADS, HEAD_DIM = 8, 2, 64
ROUNDING = 2e-2
"""Of bfloat16, which has 8 bits, on values and gradients of the size of one."""
FINDERS = {"flash-attn 3": varlen.flash_attn_3, "flash-attn 2": varlen.flash_attn_2, "torch": varlen.torch_varlen}
GPU = torch.device("cuda", 0)
LAYERS = {
    "whole documents": Scores(scaling=0.125),
    "windows": Scores(scaling=0.125, window=4096),
    "caps": Scores(scaling=0.125, softcap=50.0),
}


@pytest.fixture(params=FINDERS)
def kernel(request):
    found = FINDERS[request.param](GPU)
    if found is None:
        pytest.skip(f"{request.param} is not installed, or not for this GPU")
    return found


def offsets(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)


def attended(device, dtype, looking, settings, kernel=None):
    """Output, and gradients of queries, keys and values, as float32 on the host."""
    generator = torch.Generator().manual_seed(5)
    shapes = ((HEADS, sum(looking)), (KV_HEADS, sum(SEEN)), (KV_HEADS, sum(SEEN)))
    made = [torch.randn(1, heads, tokens, HEAD_DIM, generator=generator) for heads, tokens in shapes]
    # The host computes with what the device sees.
    tensors = tuple(each.to(torch.bfloat16).to(device, dtype).requires_grad_() for each in made)
    ends = tuple(offsets(lengths).to(device) for lengths in (looking, SEEN))
    output = attend(tensors, (looking, SEEN), ends, settings, kernel)
    output.float().square().sum().backward()
    return [output.detach().float().cpu(), *(each.grad.float().cpu() for each in tensors)]


@pytest.mark.parametrize("window", [None, 16], ids=["whole documents", "windows"])
@pytest.mark.parametrize("looking", [SEEN, LOOKING], ids=["all look", "the last look"])
def test_a_kernel_is_attention_of_each_document(kernel, looking, window):
    settings = Scores(window=window)
    found = attended("cuda", torch.bfloat16, looking, settings, kernel)
    expected = attended("cpu", torch.float32, looking, settings)
    for mine, theirs in zip(found, expected, strict=True):
        assert torch.dist(mine, theirs) <= ROUNDING * theirs.norm()
    # The control: another window would be seen.
    other = attended("cpu", torch.float32, looking, Scores(window=8))
    assert torch.dist(found[0], other[0]) > 5 * ROUNDING * other[0].norm()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_trial_lets_what_is_right_pass_and_sees_what_is_not(kernel, layer, dtype):
    right = LAYERS[layer]
    if not kernel.takes(dtype, right):
        pytest.skip("the kernel does not take such layers")
    sizes = Attention(heads=32, kv_heads=8, head_dim=128, layers=(right,))
    assert disagreement(kernel, None, sizes.cases(kernel, dtype, GPU), dtype) is None
    # The control: scores that are a fifth larger.
    other = replace(kernel, compute=lambda *given: kernel.compute(*given[:-1], replace(given[-1], scaling=0.15)))
    assert "is off by" in (disagreement(other, None, sizes.cases(other, dtype, GPU), dtype) or "")


def test_ours_agrees_with_itself_on_a_gpu():
    sizes = Attention(heads=32, kv_heads=8, head_dim=128, layers=tuple(LAYERS.values()))
    anything = varlen.VarlenKernel(name="ours", compute=lambda *_: None, caps=True)
    for dtype in (torch.bfloat16, torch.float16):
        assert disagreement(None, None, sizes.cases(anything, dtype, GPU), dtype) is None


def test_a_training_takes_what_agrees_and_says_so(recwarn):
    world = World(rank=0, size=1, device=GPU)
    model = tiny_model("llama", head_dim=64, hidden_size=256)
    taken = FsdpBackend(model, SCENARIOS["bfloat16"], world).kernels
    assert not [one for one in recwarn if one.category is KernelWarning]
    assert taken["attention"] != "our own, document by document"


def test_liger_agrees_where_it_is_installed():
    pytest.importorskip("liger_kernel")
    for architecture in ("llama", "gemma2"):
        for dtype in (torch.bfloat16, torch.float32):
            model = tiny_model(architecture, hidden_size=256, vocab_size=32000)
            assert tried_loss(model, "liger", dtype, GPU, tensor=1) == "liger"


def test_capped_scores_and_sinks_are_the_same_on_a_gpu():
    sinks = torch.linspace(-1, 1, HEADS)
    on_host, on_gpu = (Scores(softcap=5.0, sinks=sinks.to(device)) for device in ("cpu", "cuda"))
    found = attended("cuda", torch.bfloat16, SEEN, on_gpu)
    for mine, theirs in zip(found, attended("cpu", torch.float32, SEEN, on_host), strict=True):
        assert torch.dist(mine, theirs) <= ROUNDING * theirs.norm()
