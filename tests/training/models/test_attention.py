"""Packed documents never see each other; for every family that is trained, with controls that would see it."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from skills_pipe.training.data.batches import IGNORE
from skills_pipe.training.models.attention import IMPLEMENTATION, Documents
from skills_pipe.training.models.loss import SupervisedLoss
from tests.training.tiny import ARCHITECTURES, tiny_model

LENGTHS = (5, 23, 1, 40, 11)


def packed_row(lengths=LENGTHS, seed=3):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 260, (1, sum(lengths)), generator=generator)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    return ids, positions, Documents.of(offsets)


def logits_alone(model, ids, lengths=LENGTHS):
    """Each document in a batch of its own, through Hugging Face's eager attention."""
    model.set_attn_implementation("eager")
    return torch.cat([model(part, use_cache=False).logits for part in ids.split(lengths, dim=1)], dim=1)


def logits_packed(model, ids, positions, documents):
    model.set_attn_implementation(IMPLEMENTATION)
    return model(ids, position_ids=positions, documents=documents, use_cache=False).logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_of_packed_documents_equal_each_document_alone(architecture):
    model = tiny_model(architecture)
    ids, positions, documents = packed_row()

    torch.testing.assert_close(
        logits_packed(model, ids, positions, documents), logits_alone(model, ids), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_causal_row_without_documents_is_seen_by_the_same_comparison(architecture):
    model = tiny_model(architecture)
    ids, positions, _ = packed_row()
    whole = Documents.of(torch.tensor([0, sum(LENGTHS)], dtype=torch.int32))

    assert (logits_packed(model, ids, positions, whole) - logits_alone(model, ids)).abs().max() > 1e-2


def test_transformers_own_attention_with_a_cache_leaks_and_the_comparison_sees_it():
    model = tiny_model("llama")
    ids, positions, _ = packed_row()
    alone = logits_alone(model, ids)
    model.set_attn_implementation("sdpa")

    leaking = model(ids, position_ids=positions, use_cache=True).logits

    assert (leaking - alone).abs().max() > 1e-2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradients_of_a_packed_row_equal_the_sum_over_documents(architecture):
    ids, positions, documents = packed_row()
    labels = torch.full_like(ids, IGNORE)
    start = 0
    for length in LENGTHS:
        labels[0, start : start + length - 1] = ids[0, start + 1 : start + length]
        start += length
    packed, alone = tiny_model(architecture), tiny_model(architecture)

    loss = SupervisedLoss(packed)(ids, positions, labels, documents, scale=1 / 75)
    loss.backward()
    expected = cross_entropy(logits_alone(alone, ids)[0], labels[0], reduction="sum") / 75
    expected.backward()

    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for (name, ours), theirs in zip(packed.named_parameters(), alone.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() <= 1e-5 * theirs.grad.norm() + 1e-9, name


@pytest.mark.parametrize(
    ("architecture", "window"),
    [
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}),
    ],
)
def test_sliding_windows_are_honoured_within_documents(architecture, window):
    model = tiny_model(architecture, **window)
    ids, positions, documents = packed_row()
    windowed = logits_packed(model, ids, positions, documents)

    torch.testing.assert_close(windowed, logits_alone(model, ids), rtol=0, atol=1e-5)
    # The control: without the window the long documents give other logits.
    without = {name: None if name == "sliding_window" else False for name in window if name != "max_window_layers"}
    full = logits_packed(tiny_model(architecture, **without), ids, positions, documents)
    assert (windowed - full).abs().max() > 1e-3


def test_bf16_logits_of_packed_documents_equal_each_document_alone_to_bf16_rounding():
    model = tiny_model("llama").to(torch.bfloat16)
    ids, positions, documents = packed_row()

    packed = logits_packed(model, ids, positions, documents)

    assert packed.dtype == torch.bfloat16
    torch.testing.assert_close(packed, logits_alone(model, ids), rtol=0, atol=1e-2)


def test_attention_dropout_drops_in_training_only():
    model = tiny_model("llama", attention_dropout=0.5)
    row = packed_row()
    evaluated = logits_packed(model.eval(), *row)
    torch.testing.assert_close(logits_packed(model.eval(), *row), evaluated, rtol=0, atol=0)

    assert (logits_packed(model.train(), *row) - evaluated).abs().max() > 1e-3


def test_a_mask_is_refused_rather_than_ignored():
    model = tiny_model("llama")
    model.set_attn_implementation(IMPLEMENTATION)
    ids, positions, documents = packed_row()

    with pytest.raises(ValueError, match="no attention mask"):
        model(
            ids,
            position_ids=positions,
            documents=documents,
            attention_mask=torch.zeros(1, 1, 80, 80),
            use_cache=False,
        )
