"""Weights of tokens in half precision on several ranks: a factor is no activation, and is not rounded to eight bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributed.fsdp import MixedPrecisionPolicy

from skills_pipe.training.backends.fsdp import shard
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.data.dataset import Example, SftDataset
from skills_pipe.training.distributed import World
from tests.training.backends.scenario import ADAMW, BATCH, dataset, make_backend

WEIGHT = 0.3
"""Of every trained token; in bfloat16 it is 0.30078."""

SETTINGS = FsdpSettings(optimizer=ADAMW, dtype=torch.bfloat16)


def loss(world: World, *, weight: float | None, cast: bool = False) -> float:
    """The loss of a step in which all trained tokens have the same weight, by which it is divided again."""
    policy = shard.MixedPrecisionPolicy
    if cast:
        shard.MixedPrecisionPolicy = lambda **chosen: MixedPrecisionPolicy(**chosen | {"cast_forward_inputs": True})
    try:
        backend = make_backend(SETTINGS, world)
    finally:
        shard.MixedPrecisionPolicy = policy
    plain = dataset(BATCH)
    data = plain if weight is None else SftDataset.from_examples([weighted(plain[i], weight) for i in range(BATCH)])
    batch = split_batch(data, range(BATCH), BatchSettings(capacity=64), world.rank, world.size)
    return backend.train_step(batch.microbatches, targets=batch.global_weight).loss


def weighted(example: Example, weight: float) -> Example:
    return Example(input_ids=example.input_ids, loss_mask=(example.loss_mask * weight).astype(np.float32))


def test_a_weight_that_all_tokens_share_is_divided_out(two_ranks):
    expected = two_ranks(loss, weight=None)[0]

    assert two_ranks(loss, weight=WEIGHT)[0] == pytest.approx(expected, rel=1e-5)


def test_rounded_to_the_type_of_activations_it_would_not_be(two_ranks):
    expected = two_ranks(loss, weight=None)[0]

    assert two_ranks(loss, weight=WEIGHT, cast=True)[0] == pytest.approx(1.0026 * expected, rel=2e-4)
