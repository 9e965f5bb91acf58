"""Weighted documents: the loss of a step is the weighted mean over the tokens of the whole global batch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.data.build import DataSettings, build_dataset
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.template import resolve_template
from skills_pipe.training.distributed import World
from skills_pipe.training.validation import Validation
from tests.training.backends.scenario import make_backend
from tests.training.tiny import tiny_model, tiny_tokenizer

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
MOMENTUM = FsdpSettings(
    optimizer=ObjectConfig(name="torch.optim.SGD", kwargs={"lr": 0.1, "momentum": 0.9}), max_grad_norm=None
)
"""After its first step the momentum is the gradient."""

WEIGHTS = (0.25, 1, 2.5, 0, 0.1)


@pytest.fixture(scope="module")
def weighted(tmp_path_factory) -> SftDataset:
    """Conversations of two answers, the first of which has a weight of its own; through files as in training."""
    path = tmp_path_factory.mktemp("weights") / "rows.jsonl"
    rows = [
        [
            {"role": "user", "content": "q" * (at + 1)},
            {"role": "assistant", "content": "first answer", "weight": weight},
            {"role": "user", "content": "r"},
            {"role": "assistant", "content": "b" * (3 * at + 1)},
        ]
        for at, weight in enumerate(WEIGHTS)
    ]
    path.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in rows))
    tokenizer = tiny_tokenizer()
    template = resolve_template("default", tokenizer, None, "chat")
    return build_dataset([DataSource(path=path)], tokenizer, template, DataSettings(max_length=200))


def by_hand(data: SftDataset) -> tuple[torch.Tensor, torch.nn.Module]:
    """Token by token: sum of weight times cross entropy, over the sum of weights."""
    model = tiny_model()
    loss, total = torch.zeros((), dtype=torch.float64), 0.0
    for index in range(len(data)):
        ids = torch.from_numpy(data[index].input_ids.astype("int64"))
        log_probabilities = model(ids[None]).logits[0].double().log_softmax(dim=-1)
        for place in range(1, len(ids)):
            weight = float(data[index].loss_mask[place])
            loss = loss - weight * log_probabilities[place - 1, ids[place]]
            total += weight
    return loss / total, model


def test_weights_of_messages_reach_the_data_set(weighted):
    assert weighted.weighted
    for index, weight in enumerate(WEIGHTS):
        met = set(np.unique(weighted[index].loss_mask).tolist())
        assert met == {0.0, float(np.float32(weight)), 1.0}


@pytest.mark.parametrize(
    "cut", [BatchSettings(capacity=200), BatchSettings(capacity=1000), BatchSettings(capacity=200, packing=False)]
)
def test_loss_and_gradients_are_the_weighted_mean(weighted, cut):
    expected, reference = by_hand(weighted)
    expected.backward()
    batch = split_batch(weighted, range(len(weighted)), cut, 0, 1)
    backend = make_backend(MOMENTUM, ALONE)

    result = backend.train_step(batch.microbatches, targets=batch.global_weight)

    assert result.loss == pytest.approx(expected.item(), rel=1e-6)
    state = backend.trainee.optimizer.state
    for ours, theirs in zip(backend.trainee.model.parameters(), reference.parameters(), strict=True):
        assert (state[ours]["momentum_buffer"] - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()


def test_a_plain_mean_over_the_same_tokens_is_another_loss(weighted):
    expected, _ = by_hand(weighted)
    ones = SftDataset.from_examples(
        type(example)(input_ids=example.input_ids, loss_mask=(example.loss_mask != 0).astype(np.uint8))
        for example in (weighted[index] for index in range(len(weighted)))
    )
    batch = split_batch(ones, range(len(ones)), BatchSettings(capacity=1000), 0, 1)
    assert batch.global_weight == batch.global_targets
    plain = make_backend(MOMENTUM, ALONE).train_step(batch.microbatches, targets=batch.global_weight).loss
    assert plain != pytest.approx(expected.item(), rel=1e-4)


def test_validation_weighs_too(weighted):
    expected, _ = by_hand(weighted)
    validation = Validation(
        datasets={"default": weighted}, batch_size=2, max_batches=0, batches=BatchSettings(capacity=1000)
    )
    losses = validation.losses(make_backend(MOMENTUM, ALONE), ALONE)
    assert losses.overall == pytest.approx(expected.item(), rel=1e-6)
