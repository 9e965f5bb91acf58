from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, SequentialLR

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import ObjectConfig, SchedulerConfig
from skills_pipe.training.optim import build_optimizer, build_scheduler

LINEAR = ObjectConfig(name="torch.optim.lr_scheduler.LinearLR", kwargs={"start_factor": 0.1, "total_iters": 5})
COSINE = ObjectConfig(name="torch.optim.lr_scheduler.CosineAnnealingLR", kwargs={"T_max": 10, "eta_min": 1e-4})


def weight():
    return torch.nn.Parameter(torch.ones(3))


def adamw(**kwargs):
    return build_optimizer([weight()], ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": 1e-2, **kwargs}))


def rates(optimizer, scheduler, steps=20):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_arguments_reach_the_optimizer():
    group = adamw(betas=[0.9, 0.98], eps=1e-5, weight_decay=0.1).param_groups[0]

    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.98), 1e-5, 0.1)


@pytest.mark.parametrize(("given", "fused"), [({}, True), ({"fused": False}, False), ({"foreach": False}, None)])
def test_the_fused_kernel_is_used_unless_told_otherwise(given, fused):
    assert adamw(**given).param_groups[0]["fused"] is fused


def test_twenty_updates_equal_a_hand_made_adamw_bit_for_bit():
    ours, theirs = weight(), weight()
    first = build_optimizer([ours], ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": 1e-2, "betas": [0.9, 0.98]}))
    second = torch.optim.AdamW([theirs], lr=1e-2, betas=(0.9, 0.98), fused=True)
    for step in range(20):
        for parameter, optimizer in ((ours, first), (theirs, second)):
            parameter.grad = torch.tensor([0.3, -2.0, step / 7])
            optimizer.step()

    assert torch.equal(ours, theirs)


def test_frozen_parameters_are_left_to_themselves():
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    optimizer = build_optimizer([weight(), frozen], ObjectConfig(name="torch.optim.SGD", kwargs={"lr": 1.0}))

    assert [len(group["params"]) for group in optimizer.param_groups] == [1]


def test_names_of_dtypes_become_dtypes():
    seen = {}

    class Recorder(torch.optim.SGD):
        def __init__(self, params, lr, state_dtype, nested):
            seen.update(state_dtype=state_dtype, nested=nested)
            super().__init__(params, lr=lr)

    torch.optim.Recorder = Recorder
    try:
        kwargs = {"lr": 1.0, "state_dtype": "torch.bfloat16", "nested": {"a": ["torch.float32", "torch.nothing"]}}
        build_optimizer([weight()], ObjectConfig(name="torch.optim.Recorder", kwargs=kwargs))
    finally:
        del torch.optim.Recorder

    assert seen == {"state_dtype": torch.bfloat16, "nested": {"a": [torch.float32, "torch.nothing"]}}


def test_no_schedule_is_a_constant_rate():
    assert build_scheduler(adamw(), None) is None


def test_one_schedule_equals_torchs_own():
    ours, theirs = adamw(), adamw()

    expected = rates(theirs, CosineAnnealingLR(theirs, T_max=10, eta_min=1e-4))
    assert rates(ours, build_scheduler(ours, SchedulerConfig(parts=(COSINE,), milestones=()))) == expected


def test_several_schedules_follow_each_other_at_the_milestones():
    ours, theirs = adamw(), adamw()
    parts = [LinearLR(theirs, start_factor=0.1, total_iters=5), CosineAnnealingLR(theirs, T_max=10, eta_min=1e-4)]

    expected = rates(theirs, SequentialLR(theirs, parts, [5]))
    assert rates(ours, build_scheduler(ours, SchedulerConfig(parts=(LINEAR, COSINE), milestones=(5,)))) == expected
    constant = adamw()
    assert rates(constant, ConstantLR(constant, factor=1.0)) != expected


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("torch.optim.AdamWW", {}, r"no class 'AdamWW'.*did you mean 'AdamW'"),
        ("torch.optin.AdamW", {}, r"no module 'torch\.optin'"),
        ("AdamW", {}, r"no module ''.*policy\.optimizer\.name"),
        ("torch.optim.AdamW", {"learn_rate": 1}, r"has no argument 'learn_rate'"),
        ("torch.optim.AdamW", {"lr": -1.0}, r"does not take these arguments: Invalid learning"),
    ],
)
def test_a_wrong_optimizer_is_one_clear_line(name, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        build_optimizer([weight()], ObjectConfig(name=name, kwargs=kwargs))


def test_milestones_that_do_not_fit_are_an_error():
    with pytest.raises(ConfigError, match=r"SequentialLR does not take these arguments.*policy\.scheduler"):
        build_scheduler(adamw(), SchedulerConfig(parts=(LINEAR, COSINE), milestones=(1, 2)))


def test_classes_that_need_more_than_gradients_are_refused():
    with pytest.raises(ConfigError, match=r"LBFGS needs closure at each step.*policy\.optimizer\.name"):
        build_optimizer([weight()], ObjectConfig(name="torch.optim.LBFGS", kwargs={"lr": 1.0}))
    plateau = ObjectConfig(name="torch.optim.lr_scheduler.ReduceLROnPlateau", kwargs={})
    with pytest.raises(ConfigError, match=r"ReduceLROnPlateau needs metrics at each step.*policy\.scheduler\.name"):
        build_scheduler(adamw(), SchedulerConfig(parts=(plateau,), milestones=()))
