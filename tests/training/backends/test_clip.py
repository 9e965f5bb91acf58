from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

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
