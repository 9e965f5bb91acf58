"""One step of the fsdp backend is the same arithmetic however the batch is cut and however many ranks there are."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from skills_pipe.training.backends.base import TrainingDiverged
from skills_pipe.training.backends.fsdp.mesh import Mesh
from skills_pipe.training.backends.fsdp.precision import ComputeCopies
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.backends.fsdp.shard import shard
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.data.batches import BatchSettings, split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.loss import SupervisedLoss
from tests.training.backends.scenario import (
    ADAMW,
    BATCH,
    PACKED,
    SCENARIOS,
    Found,
    dataset,
    make_backend,
    train,
    train_all,
)
from tests.training.tiny import tiny_model

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
MOMENTUM = FsdpSettings(
    optimizer=ObjectConfig(name="torch.optim.SGD", kwargs={"lr": 0.1, "momentum": 0.9}), max_grad_norm=None
)
"""After its first step the momentum is the gradient."""


def first_batch(settings=PACKED):
    return split_batch(dataset(), range(BATCH), settings, 0, 1)


def assert_same(ours: Found, theirs: Found, *, loss: float, weights: float) -> None:
    assert ours.losses == pytest.approx(theirs.losses, rel=loss)
    assert ours.norms == pytest.approx(theirs.norms, rel=10 * loss)
    assert ours.evaluated == pytest.approx(theirs.evaluated, rel=loss)
    for name, value in theirs.weights.items():
        torch.testing.assert_close(
            ours.weights[name], value, rtol=0, atol=weights, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2"])
def test_loss_and_gradients_are_those_of_transformers_own_loss(architecture):
    reference, data = tiny_model(architecture), dataset()
    batch = first_batch()
    expected = torch.zeros(())
    for index in range(BATCH):
        ids = torch.from_numpy(data[index].input_ids.astype("int64"))[None]
        labels = ids.masked_fill(torch.from_numpy(data[index].loss_mask == 0)[None], -100)
        expected = expected + reference(ids, labels=labels, num_items_in_batch=batch.global_targets).loss
    expected.backward()
    backend = make_backend(MOMENTUM, ALONE, architecture)

    result = backend.train_step(batch.microbatches, targets=batch.global_targets)

    assert result.loss == pytest.approx(expected.item(), rel=1e-6)
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in reference.parameters()])).item()
    assert result.grad_norm == pytest.approx(norm, rel=1e-5)
    state = backend.trainee.optimizer.state
    for ours, theirs in zip(backend.trainee.model.parameters(), reference.parameters(), strict=True):
        assert (state[ours]["momentum_buffer"] - theirs.grad).norm() <= 1e-5 * theirs.grad.norm()


@pytest.mark.parametrize(
    "cut",
    [
        BatchSettings(capacity=64),
        BatchSettings(capacity=10_000),
        BatchSettings(capacity=64, packing=False, micro_batch_size=1),
        BatchSettings(capacity=64, packing=False, micro_batch_size=3),
    ],
)
def test_how_the_batch_is_cut_changes_nothing(cut):
    assert_same(
        train(SCENARIOS["float32"], ALONE, cut), train(SCENARIOS["float32"], ALONE, PACKED), loss=1e-6, weights=2e-5
    )


def test_a_mean_of_microbatch_means_would_be_another_loss():
    backend = make_backend(SCENARIOS["float32"], ALONE)
    batch = first_batch(BatchSettings(capacity=64, packing=False))
    means = [
        backend.evaluate([microbatch]) / int((microbatch.labels != -100).sum()) for microbatch in batch.microbatches
    ]

    exact = backend.train_step(batch.microbatches, targets=batch.global_targets).loss

    assert sum(means) / len(means) != pytest.approx(exact, rel=1e-4)


def test_recomputed_activations_give_the_same_bits():
    kept, recomputed = (train(SCENARIOS[name], ALONE, PACKED) for name in ("float32", "recomputed"))

    assert recomputed.losses == kept.losses
    assert all(torch.equal(recomputed.weights[name], value) for name, value in kept.weights.items())


def test_a_batch_without_supervised_tokens_changes_nothing():
    backend = make_backend(SCENARIOS["float32"], ALONE)
    batch = first_batch()
    for microbatch in batch.microbatches:
        microbatch.labels.fill_(-100)
    before = copy.deepcopy(backend.trainee.model.state_dict())

    result = backend.train_step(batch.microbatches, targets=0)

    assert not result.updated
    # No loss of 0, by which a checkpoint would be the best.
    assert math.isnan(result.loss)
    assert all(torch.equal(before[name], value) for name, value in backend.trainee.model.state_dict().items())
    assert not backend.trainee.optimizer.state


def test_a_loss_that_is_no_number_stops_before_the_weights_change():
    backend = make_backend(SCENARIOS["float32"], ALONE)
    with torch.no_grad():
        backend.trainee.model.lm_head.weight[7, 0] = float("nan")
    before = copy.deepcopy(backend.trainee.model.state_dict())
    batch = first_batch()

    with pytest.raises(TrainingDiverged, match="the loss is nan"):
        backend.train_step(batch.microbatches, targets=batch.global_targets)

    after = backend.trainee.model.state_dict()
    assert all(torch.equal(before[name].nan_to_num(9), value.nan_to_num(9)) for name, value in after.items())


def test_evaluation_is_without_dropout_and_training_goes_on_with_it():
    backend = make_backend(SCENARIOS["float32"], ALONE, attention_dropout=0.5)
    plain = make_backend(SCENARIOS["float32"], ALONE)
    microbatches = first_batch().microbatches

    assert backend.evaluate(microbatches) == plain.evaluate(microbatches)
    assert backend.trainee.model.training
    with_dropout = backend.train_step(microbatches, targets=100).loss
    assert with_dropout != pytest.approx(plain.train_step(microbatches, targets=100).loss, rel=1e-5)


def test_outside_of_a_step_weights_are_fp32_also_in_half_precision():
    backend = make_backend(SCENARIOS["bfloat16"], ALONE, tie_word_embeddings=True)
    batch = first_batch()
    backend.train_step(batch.microbatches, targets=batch.global_targets)
    model = backend.trainee.model

    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert all(state["exp_avg"].dtype == torch.float32 for state in backend.trainee.optimizer.state.values())


@pytest.fixture
def one_rank_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("tied", [False, True])
def test_lent_copies_give_the_bits_of_fsdp_over_one_rank(one_rank_group, tied):
    plain, sharded = (tiny_model("llama", tie_word_embeddings=tied) for _ in range(2))
    losses = SupervisedLoss(plain), SupervisedLoss(sharded)
    shard(losses[1], Mesh.of(Layout(), "cpu"), torch.bfloat16)

    with ComputeCopies(plain, torch.bfloat16).lent():
        first = [backward(losses[0], microbatch) for microbatch in first_batch().microbatches]
    second = [backward(losses[1], microbatch) for microbatch in first_batch().microbatches]

    assert first == second
    for (name, ours), theirs in zip(plain.named_parameters(), sharded.parameters(), strict=True):
        assert isinstance(theirs.grad, DTensor)
        assert torch.equal(ours.grad, theirs.grad.full_tensor()), name


def backward(loss: SupervisedLoss, microbatch) -> float:
    value = loss(
        microbatch.input_ids,
        microbatch.position_ids,
        microbatch.labels,
        Documents.of(microbatch.cu_seqlens),
        scale=1 / 128,
    )
    value.backward()
    return value.item()


@pytest.fixture(scope="module")
def trained_by_two(two_ranks) -> dict[str, Found]:
    """Every scenario, trained by two processes."""
    return two_ranks(train_all)[0]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_ranks_train_as_one_does(trained_by_two, scenario):
    tolerance = 1e-6 if SCENARIOS[scenario].dtype == torch.float32 else 1e-3

    assert_same(
        trained_by_two[scenario], train(SCENARIOS[scenario], ALONE, PACKED), loss=tolerance, weights=20 * tolerance
    )


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "mistral", "gpt2"])
def test_two_ranks_train_every_family_as_one_does(trained_by_two, architecture):
    alone = train(SCENARIOS["float32"], ALONE, PACKED, architecture)

    assert_same(trained_by_two[architecture], alone, loss=1e-6, weights=2e-5)


def test_the_comparison_of_ranks_sees_averaged_gradients(trained_by_two):
    halved = FsdpSettings(optimizer=ADAMW)
    backend = make_backend(halved, ALONE)
    batch = first_batch()

    result = backend.train_step(batch.microbatches, targets=2 * batch.global_targets)

    assert trained_by_two["float32"].norms[0] != pytest.approx(result.grad_norm, rel=1e-5)
