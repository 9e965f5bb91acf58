"""The norm of gradients and clipping by it: torch's own, and the same on all ranks."""

from __future__ import annotations

import logging

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from skills_pipe.training.backends.fsdp import clip
from skills_pipe.training.backends.fsdp.clip import clip_gradients


def parameters(scale=1.0):
    generator = torch.Generator().manual_seed(2)
    made = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((4, 3), (7,), (2, 2, 2))]
    for parameter in made:
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.mark.parametrize("max_norm", [0.5, 1.0, 100.0])
def test_norm_and_gradients_equal_torchs_clipping(max_norm):
    ours, theirs = parameters(), parameters()

    norm = clip_gradients(ours, max_norm)

    assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, max_norm).item(), rel=1e-6)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-6, atol=0)


@pytest.mark.parametrize("max_norm", [None, 0.0])
def test_without_a_limit_the_norm_is_only_measured(max_norm):
    ours = parameters()

    assert clip_gradients(ours, max_norm) > 0
    assert all(torch.equal(left.grad, right.grad) for left, right in zip(ours, parameters(), strict=True))


def test_parameters_without_gradients_do_not_count():
    assert clip_gradients([torch.nn.Parameter(torch.ones(3))], 1.0) == 0.0


def test_an_infinite_gradient_shows_in_the_norm_and_scales_nothing():
    ours = parameters()
    ours[0].grad[0, 0] = float("inf")

    assert clip_gradients(ours, 1.0) == float("inf")
    assert torch.equal(ours[1].grad, parameters()[1].grad)


def test_plain_and_sharded_gradients_of_several_meshes_are_clipped_together():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        meshes = [init_device_mesh("cpu", (1,)), init_device_mesh("cpu", (1, 1), mesh_dim_names=("a", "b"))["b"]]
        mixed, plain = parameters(), parameters()
        for index, mesh in enumerate(meshes):
            gradient = distribute_tensor(mixed[index].grad, mesh, [Shard(0)])
            mixed[index] = torch.nn.Parameter(distribute_tensor(torch.zeros(gradient.shape), mesh, [Shard(0)]))
            mixed[index].grad = gradient

        assert clip_gradients(mixed, 0.5) == pytest.approx(clip_gradients(plain, 0.5), rel=1e-6)
        torch.testing.assert_close(mixed[0].grad.full_tensor(), plain[0].grad)
        torch.testing.assert_close(mixed[2].grad, plain[2].grad)
    finally:
        dist.destroy_process_group()


def clipped_on_two_dimensions(world, *, off=0.0):
    """Norm, clipped gradients, and what torch warns of; ``off``: by which part odd ranks add otherwise."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("a", "b"))
    spread = ([Shard(0), Shard(1)], [Shard(0), Replicate()], [Replicate(), Shard(1)])
    sharded = parameters()
    for parameter, placements in zip(sharded, spread, strict=True):
        gradient = distribute_tensor(parameter.grad, mesh, placements)
        parameter.data = distribute_tensor(parameter.data, mesh, placements)
        parameter.grad = gradient
    warned, right = [], clip._over_ranks
    handler = logging.Handler()
    handler.emit = lambda record: warned.append(record.getMessage())
    logger = logging.getLogger("torch.distributed.tensor._redistribute")
    logger.addHandler(handler)
    clip._over_ranks = lambda norm, spread: right(norm, spread) * (1 + off * (world.rank % 2))
    try:
        norm = clip_gradients(sharded, 0.5)
        told = list(warned)
        # The control of the warning: torch's own norm has it.
        torch.nn.utils.get_total_norm([sharded[0].grad]).full_tensor()
    finally:
        clip._over_ranks = right
        logger.removeHandler(handler)
    return norm, [parameter.grad.full_tensor() for parameter in sharded], told, warned


def test_the_norm_over_two_dimensions_of_a_mesh_is_that_of_the_whole_without_a_warning(four_ranks):
    plain = parameters()
    expected = clip_gradients(plain, 0.5)
    for norm, gradients, told, warned in four_ranks(clipped_on_two_dimensions):
        assert norm == pytest.approx(expected, rel=1e-6)
        for found, parameter in zip(gradients, plain, strict=True):
            torch.testing.assert_close(found, parameter.grad, rtol=1e-6, atol=0)
        assert told == []
        assert any("different reduction orders" in message for message in warned)


def test_ranks_that_add_in_other_orders_clip_alike(four_ranks):
    """As groups of a larger machine may; what several ranks hold alike stays so to the bit."""
    found = four_ranks(clipped_on_two_dimensions, off=1e-6)
    assert len({norm for norm, *_ in found}) == 1
    for _, gradients, *_ in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(gradients, found[0][1], strict=True))
