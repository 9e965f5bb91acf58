"""What must not matter to a step does not: the order of documents, tokens that nobody is trained on after them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.data.dataset import Example, SftDataset
from skills_pipe.training.distributed import World
from tests.training.backends.scenario import BATCH, PACKED, dataset, make_backend
from tests.training.tiny import tiny_model

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
MOMENTUM = FsdpSettings(
    optimizer=ObjectConfig(name="torch.optim.SGD", kwargs={"lr": 0.1, "momentum": 0.9}), max_grad_norm=None
)
"""After its first step the momentum is the gradient."""

FILLER = np.arange(7, 19, dtype=np.int32)


def documents():
    data = dataset(BATCH)
    return [data[at] for at in range(BATCH)]


def filled(example, *, before=0, after=0, trained=0):
    """A document with untrained tokens around it, or tokens at its end that are trained."""
    ids = np.concatenate([FILLER[:before], example.input_ids, FILLER[: after + trained]])
    mask = np.concatenate([np.zeros(before), example.loss_mask, np.zeros(after), np.ones(trained)])
    return Example(input_ids=ids, loss_mask=mask.astype(np.uint8))


def untrained(example):
    return replace(example, loss_mask=np.zeros_like(example.loss_mask))


def step(examples):
    """Loss and gradients of one step on all of these documents."""
    batch = split_batch(SftDataset.from_examples(examples), range(len(examples)), PACKED, 0, 1)
    backend = make_backend(MOMENTUM, ALONE)
    loss = backend.train_step(batch.microbatches, targets=batch.global_targets).loss
    state = backend.trainee.optimizer.state
    return loss, {name: state[value]["momentum_buffer"] for name, value in backend.trainee.model.named_parameters()}


def differences(found, expected):
    """Of the losses, and the largest of a gradient, by its norm."""
    gradients = (float((found[1][name] - value).norm() / value.norm()) for name, value in expected[1].items())
    return abs(found[0] - expected[0]) / expected[0], max(gradients)


@pytest.mark.parametrize(
    "same",
    [
        lambda examples: examples[::-1],
        lambda examples: [examples[at] for at in np.random.RandomState(1).permutation(BATCH)],
        lambda examples: [filled(each, after=1 + at) for at, each in enumerate(examples)],
        lambda examples: [untrained(examples[3]), *examples, untrained(examples[0])],
    ],
    ids=["reversed", "permuted", "untrained tokens after each", "untrained documents"],
)
def test_what_must_not_matter_does_not(same):
    loss, gradient = differences(step(same(documents())), step(documents()))

    assert loss < 1e-6
    assert gradient < 1e-5


@pytest.mark.parametrize(
    "other",
    [
        lambda examples: [filled(each, before=1 + at) for at, each in enumerate(examples)],
        lambda examples: [filled(examples[0], trained=1), *examples[1:]],
        lambda examples: [*examples, examples[0]],
        lambda examples: [untrained(examples[0]), *examples[1:]],
    ],
    ids=["untrained tokens before each", "one trained token more", "a document twice", "a document not trained"],
)
def test_what_matters_is_seen_by_the_same_comparison(other):
    loss, gradient = differences(step(other(documents())), step(documents()))

    assert loss > 1e-5
    assert gradient > 1e-3


def test_perplexity_is_what_counting_token_by_token_gives():
    """Counted in float64 from the logits of transformers, one document at a time."""
    model, nats, tokens, of_documents = tiny_model("llama"), 0.0, 0, []
    for example in documents():
        ids = torch.from_numpy(example.input_ids.astype("int64"))
        with torch.no_grad():
            surprise = -torch.log_softmax(model(ids[None]).logits[0].double(), dim=-1)
        each = [surprise[at - 1, ids[at]].item() for at in range(1, len(ids)) if example.loss_mask[at]]
        nats, tokens, of_documents = nats + sum(each), tokens + len(each), [*of_documents, sum(each) / len(each)]
    batch = split_batch(SftDataset.from_examples(documents()), range(BATCH), PACKED, 0, 1)

    found = math.exp(make_backend(MOMENTUM, ALONE).evaluate(batch.microbatches) / batch.global_targets)

    assert found == pytest.approx(math.exp(nats / tokens), rel=1e-6)
    # The control: a mean of the documents' means is another perplexity.
    assert math.exp(sum(of_documents) / BATCH) != pytest.approx(found, rel=1e-4)
