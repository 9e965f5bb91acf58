from __future__ import annotations

import pytest
import torch
import transformers
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, SequentialLR

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.checkpoint import tensors
from skills_pipe.training.checkpoint.state import Trainee
from skills_pipe.training.config import ObjectConfig, SchedulerConfig
from skills_pipe.training.distributed import World
from skills_pipe.training.optimizers.build import build_optimizer, build_scheduler, outer_matrices
from tests.training.backends.scenario import PACKED, train
from tests.training.tiny import tiny_model

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
        (
            "torch.optim.AdamW",
            {"lr": -1.0},
            r"does not take these arguments \(lr=-1.0.*\): Invalid learning rate: -1.0 \(policy\.optim[^:]*$",
        ),
        (
            "torch.optim.AdamW",
            {"betas": 0.9},
            r"AdamW does not take these arguments \(betas=0.9.*\): .*\(policy\.optimizer\)",
        ),
        ("torch.optim.SparseAdam", {"lr": 1.0}, r"takes sparse gradients only.*: choose another, such as"),
        (
            "transformers.optimization.Adafactor",
            {"lr": 1.0},
            r"does not take these.*\+\+policy\.optimizer\.kwargs\.lr=null",
        ),
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


MUON = {"lr": 1e-2, "weight_decay": 0.1, "momentum": 0.9, "betas": [0.9, 0.98], "eps": 1e-8}


def muon(model, **kwargs):
    config = ObjectConfig(name="torch.optim.Muon", kwargs=MUON | kwargs)
    return build_optimizer(model.parameters(), config, outer=outer_matrices(model))


def trained_with(optimizer, model, steps=4):
    """The weights after a few steps on the same tokens."""
    tokens = torch.arange(5, 37)[None]
    for _ in range(steps):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest(architecture):
    ours, theirs = tiny_model(architecture), tiny_model(architecture)
    inside = {
        name for name, value in theirs.named_parameters() if value.ndim == 2 and (".h." in name or "layers" in name)
    }
    named = dict(theirs.named_parameters())
    first = torch.optim.Muon([named[name] for name in named if name in inside], lr=1e-2, weight_decay=0.1, momentum=0.9)
    rest = [named[name] for name in named if name not in inside]
    second = torch.optim.AdamW(rest, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.98), eps=1e-8, fused=True)
    joint = Both(first, second)

    found, expected = trained_with(muon(ours), ours), trained_with(joint, theirs)

    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    other = tiny_model(architecture)
    alone = trained_with(torch.optim.AdamW(other.parameters(), lr=1e-2, weight_decay=0.1, betas=(0.9, 0.98)), other)
    assert not all(torch.equal(found[name], alone[name]) for name in inside)


def test_biases_of_experts_are_a_stack_of_vectors_and_no_matrix():
    model = tiny_model("gpt_oss")
    named = {name: one for name, one in model.named_parameters() if one.ndim == 2}
    biases = [name for name in named if "experts" in name and name.endswith("bias")]
    assert biases
    hidden, _ = muon(model).param_groups
    taken = [name for name, one in named.items() if any(one is other for other in hidden["params"])]
    assert not set(taken) & set(biases)
    assert "model.layers.0.self_attn.q_proj.weight" in taken, "the control"


def schedule(name, **kwargs):
    return SchedulerConfig(parts=(ObjectConfig(name=name, kwargs=kwargs),), milestones=())


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("transformers.get_polynomial_decay_schedule_with_warmup", {"num_warmup_steps": 2, "lr_end": 1e-3}),
        ("transformers.get_cosine_with_min_lr_schedule_with_warmup", {"num_warmup_steps": 2, "min_lr": 1e-3}),
        ("torch.optim.lr_scheduler.OneCycleLR", {"max_lr": 1e-2, "total_steps": 21, "cycle_momentum": False}),
    ],
)
def test_schedules_that_ask_for_the_rate_move_muon_as_they_move_any_other(name, kwargs):
    both = muon(tiny_model())
    alone = torch.optim.AdamW([weight()], lr=1e-2)
    found, expected = (
        rates(optimizer, build_scheduler(optimizer, schedule(name, **kwargs), total_steps=20))
        for optimizer in (both, alone)
    )
    assert found == expected
    assert len(set(found)) > 3, "they do move"
    assert len({group["lr"] for group in both.param_groups}) == 1, "of both parts"


def test_a_schedule_of_a_momentum_that_only_one_of_them_has_is_refused():
    with pytest.raises(ConfigError, match="OneCycleLR does not take these arguments"):
        build_scheduler(muon(tiny_model()), schedule("torch.optim.lr_scheduler.OneCycleLR", max_lr=1.0, total_steps=8))


class Both:
    """A reference loop's two optimizers."""

    def __init__(self, *optimizers):
        self.optimizers = optimizers

    def step(self):
        for optimizer in self.optimizers:
            optimizer.step()

    def zero_grad(self):
        for optimizer in self.optimizers:
            optimizer.zero_grad()


def test_adamw_beside_muon_may_have_arguments_of_its_own():
    groups = muon(tiny_model(), adamw={"lr": 3e-4, "weight_decay": 0.0}).param_groups

    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(1e-2, 0.1), (3e-4, 0.0)]
    with pytest.raises(ConfigError, match=r"neither Muon nor AdamW has .* 'momentun'.*did you mean 'momentum'"):
        muon(tiny_model(), momentun=0.9)
    with pytest.raises(ConfigError, match="argument 'momentum'"):
        muon(tiny_model(), adamw={"momentum": 0.9})


def test_a_schedule_moves_both_rates():
    optimizer = muon(tiny_model(), adamw={"lr": 1e-3})
    scheduler = build_scheduler(optimizer, SchedulerConfig(parts=(LINEAR,), milestones=()))

    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-3, 1e-4])
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2.8e-3, 2.8e-4])


@pytest.mark.parametrize("name", ["torch.optim.AdamW", "torch.optim.Muon"])
def test_its_state_goes_through_a_checkpoint(name, tmp_path):
    def trainee():
        model = tiny_model()
        kwargs = {"lr": 1e-2}
        optimizer = build_optimizer(
            model.parameters(), ObjectConfig(name=name, kwargs=kwargs), outer=outer_matrices(model)
        )
        return Trainee(model=model, optimizer=optimizer)

    first, second = trainee(), trainee()
    trained_with(first.optimizer, first.model, steps=2)
    tensors.write(tensors.optimizer_state(first), tmp_path)
    second.model.load_state_dict(first.model.state_dict())
    tensors.load_optimizer_state(second, tmp_path)
    fresh = trainee()
    fresh.model.load_state_dict(first.model.state_dict())

    expected = trained_with(first.optimizer, first.model)
    found, without = trained_with(second.optimizer, second.model), trained_with(fresh.optimizer, fresh.model)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    assert not all(torch.equal(without[name], expected[name]) for name in expected)


def updated(world, name, architecture="llama"):
    """Weights after three steps with an optimizer, on any number of ranks."""
    kwargs = {"lr": 1e-2, "momentum": 0.9} if name.endswith("SGD") else {"lr": 1e-2}
    return train(FsdpSettings(optimizer=ObjectConfig(name=name, kwargs=kwargs)), world, PACKED, architecture).weights


@pytest.mark.parametrize("name", ["torch.optim.AdamW", "torch.optim.SGD", "torch.optim.Adagrad"])
def test_sharded_weights_are_updated_as_whole_ones(name, two_ranks):
    alone = updated(World(rank=0, size=1, device=torch.device("cpu")), name)
    together = two_ranks(updated, name=name)[0]

    for key, value in alone.items():
        torch.testing.assert_close(together[key], value, rtol=1e-4, atol=1e-5)


SPREAD = {
    "shards, or a layer that is shared by outputs": ((2,), (Shard(0),)),
    "a layer that is shared by inputs": ((2,), (Shard(1),)),
    "shards of outputs": ((2, 2), (_StridedShard(0, split_factor=2), Shard(0))),
    "shards of inputs": ((2, 2), (Shard(0), Shard(1))),
    "copies of a shared layer": ((2, 2), (Replicate(), Shard(1))),
}
"""Sizes of the mesh and where a matrix lies on it, as the backend spreads one."""


def random_gradient():
    """Of a matrix; its singular values are not small, so that what is made orthogonal is no noise."""
    return torch.randn(64, 16, generator=torch.Generator().manual_seed(0))


def orthogonal_update(world, *, spread):
    """What one step of Muon adds to a matrix that is spread so, or to parts of it that know nothing of each other."""
    gradient = random_gradient()
    if spread is None:
        parameter = torch.nn.Parameter(torch.zeros_like(gradient.chunk(world.size)[world.rank]))
        parameter.grad = gradient.chunk(world.size)[world.rank]
    else:
        sizes, placements = SPREAD[spread]
        mesh = init_device_mesh("cpu", sizes)
        parameter = torch.nn.Parameter(distribute_tensor(torch.zeros_like(gradient), mesh, placements))
        parameter.grad = distribute_tensor(gradient, mesh, placements)
    config = ObjectConfig(name="torch.optim.Muon", kwargs={"lr": 1.0, "weight_decay": 0.0})
    build_optimizer([parameter], config).step()
    return parameter.detach() if spread is None else parameter.full_tensor().detach()


@pytest.mark.parametrize(
    "spread", [name if len(SPREAD[name][0]) == 1 else pytest.param(name, marks=pytest.mark.slow) for name in SPREAD]
)
def test_muon_makes_the_whole_of_a_spread_matrix_orthogonal(request, spread):
    whole = torch.nn.Parameter(torch.zeros(64, 16))
    whole.grad = random_gradient()
    torch.optim.Muon([whole], lr=1.0, weight_decay=0.0).step()

    ranks = request.getfixturevalue("two_ranks" if len(SPREAD[spread][0]) == 1 else "four_ranks")
    for update in ranks(orthogonal_update, spread=spread):
        assert torch.dist(update, whole) < 0.05 * whole.norm()


def test_the_control_parts_that_are_made_orthogonal_apart_are_something_else(two_ranks):
    whole = torch.nn.Parameter(torch.zeros(64, 16))
    whole.grad = random_gradient()
    torch.optim.Muon([whole], lr=1.0, weight_decay=0.0).step()
    apart = torch.cat(two_ranks(orthogonal_update, spread=None))
    assert torch.dist(apart, whole) > 0.2 * whole.norm()


def refused(world, name):
    """What is said of an optimizer on several ranks."""
    try:
        updated(world, name)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", ["torch.optim.Adafactor", "torch.optim.Rprop"])
def test_what_cannot_update_shards_is_refused_before_training(name, two_ranks):
    for sentence in two_ranks(refused, name=name):
        assert sentence.startswith(f"{name} cannot update weights that are sharded over ranks (policy.optimizer.name)")
    assert refused(World(rank=0, size=1, device=torch.device("cpu")), name) is None


TRANSFORMERS = {
    "get_cosine_schedule_with_warmup": {"num_warmup_steps": 4},
    "get_linear_schedule_with_warmup": {"num_warmup_steps": 4},
    "get_wsd_schedule": {"num_warmup_steps": 3, "num_decay_steps": 5, "decay_type": "linear"},
    "get_constant_schedule_with_warmup": {"num_warmup_steps": 5},
}


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_schedules_with_warmup_know_the_length_of_the_training(name):
    ours, theirs = adamw(), adamw()
    kwargs = TRANSFORMERS[name]
    length = {} if name == "get_constant_schedule_with_warmup" else {"num_training_steps": 20}
    expected = rates(theirs, getattr(transformers, name)(theirs, **kwargs, **length))
    config = SchedulerConfig(parts=(ObjectConfig(name=f"transformers.{name}", kwargs=kwargs),), milestones=())

    assert rates(ours, build_scheduler(ours, config, total_steps=20)) == expected
    other = adamw()
    shorter = rates(other, build_scheduler(other, config, total_steps=12))
    assert (shorter == expected) is (name == "get_constant_schedule_with_warmup")


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(ConfigError, match=r"no module 'nowhere\.optim'.*nowhere is not installed.*pip install nowhere"):
        build_optimizer([weight()], ObjectConfig(name="nowhere.optim.AdamW8bit", kwargs={}))
