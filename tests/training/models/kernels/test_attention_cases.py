"""A kernel for attention is believed when it computes what ours does; each kind of fault is seen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface

from skills_pipe.training.models.attention import packed_attention
from skills_pipe.training.models.kernels import agreement
from skills_pipe.training.models.kernels.agreement import disagreement
from skills_pipe.training.models.kernels.attention_cases import Attention
from skills_pipe.training.models.kernels.varlen import VarlenKernel
from skills_pipe.training.models.scores import Scores, attend_by_scores
from tests.training.models.kernels.documented import FAULTS, kernel
from tests.training.models.test_attention import packed_row
from tests.training.tiny import ARCHITECTURES, tiny_model

CPU = torch.device("cpu")
LAYERS = {
    "whole documents": Scores(scaling=0.25),
    "short windows": Scores(scaling=0.25, window=9),
    "long windows": Scores(scaling=0.25, window=400),
    "capped": Scores(scaling=0.25, softcap=50.0),
    "capped in windows": Scores(scaling=0.2, softcap=50.0, window=64),
}
SIZES = Attention(heads=4, kv_heads=2, head_dim=16, layers=tuple(LAYERS.values()))


def against(candidate, dtype=torch.bfloat16, layers=SIZES.layers):
    sizes = replace(SIZES, layers=tuple(layers))
    cases = list(sizes.cases(kernel(), dtype, CPU))
    assert len(cases) >= 2 * len(layers)
    return disagreement(candidate, None, cases, dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_ours_agrees_with_itself(dtype):
    assert against(None, dtype) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_attention_as_flash_attn_documents_it_agrees(dtype):
    assert against(kernel(), dtype) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_computes_something_else_is_seen(fault, dtype):
    told = against(kernel(fault), dtype)
    assert told is not None and told.startswith("is off by"), told
    if fault == "wrong gradients":
        assert "gradient of keys" in told, told


@pytest.mark.parametrize(
    ("fault", "layer"), [("no window", "long windows"), ("no cap", "capped"), ("another scale", "whole documents")]
)
def test_each_kind_of_layer_shows_its_own_fault(fault, layer):
    assert "is off by" in against(kernel(fault), layers=[LAYERS[layer]])
    others = [LAYERS["short windows"]] if fault == "no cap" else [LAYERS["capped"]]
    if fault != "another scale":
        assert against(kernel(fault), layers=others) is None


def test_a_window_that_no_short_document_reaches_is_tried_in_its_real_length():
    """One token more in a window of four hundred is less than rounding; none at all is not."""
    long = [case for case in SIZES.cases(kernel(), torch.bfloat16, CPU) if case.name == "a document of 450 tokens"]
    assert len(long) == 1
    assert "is off by" in disagreement(kernel("no window"), None, long, torch.bfloat16)
    assert disagreement(kernel(), None, long, torch.bfloat16) is None


class RoundsScores(VarlenKernel):
    """Ours as it is on a GPU, where products of capped layers are in half precision."""

    def __call__(self, tensors, lengths, offsets, layer):
        query, key, value = tensors
        split = query.split(lengths[0], 2), key.split(lengths[1], 2), value.split(lengths[1], 2)
        return torch.cat([attend_by_scores(*each, layer).transpose(1, 2) for each in zip(*split, strict=True)], dim=1)


def test_what_ours_rounds_more_than_a_kernel_would_excuses_no_fault(monkeypatch):
    coarse = RoundsScores(name="coarse", compute=None, caps=True)
    capped = replace(SIZES, head_dim=256, layers=(Scores(scaling=1 / 16, softcap=50.0),))

    def told(fault):
        return disagreement(kernel(fault), coarse, capped.cases(coarse, torch.bfloat16, CPU), torch.bfloat16)

    assert told(None) is None
    for fault in ("another scale", "no cap"):
        assert "is off by" in told(fault)
    monkeypatch.setattr(agreement, "_MOST", float("inf"))
    assert told("another scale") is None, "the control: four times as much as ours is too much here"


def test_a_kernel_that_fails_or_gives_no_numbers_is_not_believed():
    def failing(*_, **__):
        raise RuntimeError("no kernel image is available\nfor this device")

    def nothing(q, k, v, *_, **__):
        return q * torch.nan + k.sum() + v.sum()

    def another_shape(q, *_, **__):
        return q[:, :1]

    assert against(kernel(function=failing)) == "cannot be tried: no kernel image is available"
    assert "is off by nan" in against(kernel(function=nothing))
    assert "cannot be tried" in against(kernel(function=another_shape))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_what_is_tried_is_what_the_layers_of_a_model_ask_for(architecture, ranks):
    asked = set()

    def asking(module, query, key, value, mask, *, scaling=None, sliding_window=None, softcap=None, s_aux=None, **more):
        sizes = query.shape[1] // ranks, key.shape[1] // ranks, query.shape[3]
        asked.add((*sizes, scaling or query.shape[3] ** -0.5, sliding_window, softcap, s_aux is not None))
        how = {"scaling": scaling, "sliding_window": sliding_window, "softcap": softcap, "s_aux": s_aux}
        return packed_attention(module, query, key, value, mask, **how, **more)

    AttentionInterface.register("asking", asking)
    AttentionMaskInterface.register("asking", lambda *_, **__: None)
    model = tiny_model(architecture)
    model.set_attn_implementation("asking")
    ids, positions, documents = packed_row()
    model(ids, position_ids=positions, documents=documents, use_cache=False)

    found = Attention.of(model, ranks=ranks)
    sizes = found.heads, found.kv_heads, found.head_dim
    assert asked == {
        (*sizes, layer.scaling, layer.window, layer.softcap, layer.sinks is not None) for layer in found.layers
    }
