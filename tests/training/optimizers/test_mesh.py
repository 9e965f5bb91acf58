"""Parameters on several meshes are updated as whole ones are, and look like one group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.distributed import World
from skills_pipe.training.optimizers.build import build_optimizer
from skills_pipe.training.optimizers.mesh import MeshOptimizer, meshes_of
from tests.training.backends.scenario import whole

STEPS = 4


class Counting(torch.optim.SGD):
    """Keeps what it has to know of the past in its group, as schedule-free optimizers do."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            for parameter in group["params"]:
                parameter.sub_(parameter.grad * group["lr"] / group["count"])


def values(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((4, 6), (8, 2), (4, 3, 2), (5,))]


def spread(world: World) -> list[Any]:
    """How each parameter lies: on one mesh, on it again, on another mesh, on none."""
    one = init_device_mesh("cpu", (world.size,))
    other = init_device_mesh("cpu", (1, world.size), mesh_dim_names=("same", "expert"))
    return [(one, [Shard(0)]), (one, [Replicate()]), (other, [Replicate(), Shard(0)]), None]


def stepped(world: World | None, *, name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    places = spread(world) if world is not None else [None] * 4

    def placed(value: torch.Tensor, place: Any) -> torch.Tensor:
        return value if place is None else distribute_tensor(value, *place)

    parameters = [torch.nn.Parameter(placed(value, place)) for value, place in zip(values(0), places, strict=True)]
    optimizer = build_optimizer(parameters, ObjectConfig(name=name, kwargs=kwargs))
    for step in range(STEPS):
        for parameter, gradient, place in zip(parameters, values(step + 1), places, strict=True):
            parameter.grad = placed(gradient, place)
        optimizer.step()
    return {
        "values": [whole(parameter.detach()) for parameter in parameters],
        "groups": [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups],
        "meshes": len(meshes_of(parameters)),
        "split": isinstance(optimizer, MeshOptimizer),
    }


def counted(world: World | None) -> dict[str, Any]:
    return stepped(world, name=f"{__name__}.Counting", kwargs={"lr": 0.1})


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("torch.optim.AdamW", {"lr": 0.1}),
        ("torch.optim.AdamW", {"lr": 0.1, "foreach": True}),
        ("torch.optim.SGD", {"lr": 0.1, "momentum": 0.9}),
    ],
)
def test_several_meshes_are_updated_as_whole_tensors(two_ranks, name, kwargs):
    expected = stepped(None, name=name, kwargs=kwargs)
    for found in two_ranks(stepped, name=name, kwargs=kwargs):
        assert (found["meshes"], found["split"], len(found["groups"])) == (3, True, 1)
        for one, other in zip(found["values"], expected["values"], strict=True):
            torch.testing.assert_close(one, other)
    assert not expected["split"]


def test_what_a_group_counts_is_counted_once_for_each_step(two_ranks):
    expected = counted(None)
    for found in two_ranks(counted):
        assert found["groups"][0]["count"] == expected["groups"][0]["count"] == STEPS
        for one, other in zip(found["values"], expected["values"], strict=True):
            torch.testing.assert_close(one, other)


def test_schedules_that_move_the_momentum_find_what_they_ask_for():
    """They look it up among the defaults of the optimizer."""
    inner = torch.optim.AdamW([torch.nn.Parameter(values(0)[0])], lr=0.1)
    optimizer = MeshOptimizer(inner)
    OneCycleLR(optimizer, max_lr=0.1, total_steps=10)
    assert optimizer.param_groups[0]["betas"][0] == 0.95
    assert optimizer.param_groups[0]["lr"] < 0.1


def without_splitting(world: World) -> str:
    sharded = torch.nn.Parameter(distribute_tensor(values(0)[0], *spread(world)[0]))
    optimizer: Optimizer = torch.optim.AdamW([sharded, torch.nn.Parameter(values(0)[3])], foreach=True)
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.ones_like(parameter)
    try:
        optimizer.step()
    except RuntimeError as error:
        return str(error)
    return "accepted"


def test_one_kernel_does_not_take_all_of_them(two_ranks):
    assert all("mixed torch.Tensor and DTensor" in what for what in two_ranks(without_splitting))
