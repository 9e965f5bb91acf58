"""The count of operations beside torch's own counter, which looks at what is really computed."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from skills_pipe.training.models.flops import ModelFlops
from tests.training.tiny import ARCHITECTURES, tiny_model


def counted(model, tokens):
    """What torch counts in a forward and backward pass over one document whose tokens are all trained."""
    ids = torch.arange(5, 5 + tokens)[None]
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_what_torch_counts_within_two_percent(architecture):
    windows = {"sliding_window": 400} if architecture in ("gemma2", "gemma3_text", "gpt_oss") else {}
    model, tokens = tiny_model(architecture, attn_implementation="eager", **windows), 96
    if architecture in ("qwen3_moe", "gpt_oss"):
        model.set_experts_implementation("eager")  # torch counts no grouped products
    flops = ModelFlops.of(model)
    # Torch counts the masked half of attention too, which eager attention computes.
    masked = 12 * flops.heads * len(flops.windows) * tokens**2 / 2

    assert flops.of_step([tokens], tokens) + masked == pytest.approx(counted(model, tokens), rel=0.02)
    assert flops.of_step([tokens], tokens) + masked != pytest.approx(counted(model, 2 * tokens), rel=0.3)


def test_frozen_weights_need_no_gradients_of_their_own():
    model = tiny_model(attn_implementation="eager")
    whole = ModelFlops.of(model).of_step([64], 64)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "q_proj" in name
    flops = ModelFlops.of(model)

    assert flops.of_step([64], 64) < 0.75 * whole
    assert flops.trained == 2 * 32 * 32


def test_documents_are_apart_and_untrained_tokens_need_no_logits():
    flops = ModelFlops.of(tiny_model())
    apart, together = flops.of_step([32] * 4, 0), flops.of_step([128], 0)

    assert together - apart == 12 * flops.heads * 2 * (128**2 - 4 * 32**2) / 2
    assert flops.of_step([128], 10) - together == 10 * 6 * 264 * 32


def test_a_window_bounds_what_a_token_sees():
    flops = ModelFlops.of(tiny_model("mistral", sliding_window=16))
    pairs = sum(min(position, 16) for position in range(1, 201)) * 2
    linear = 200 * 6 * flops.matrices

    assert flops.windows == (16, 16)
    assert flops.of_step(np.array([200]), 0) - linear == pytest.approx(12 * flops.heads * pairs, rel=0.05)
