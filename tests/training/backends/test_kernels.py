"""Kernels are tried where they would compute: all ranks take the same, and what is not believed is told."""

from __future__ import annotations

import sys
import warnings
from functools import partial
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError
from types import ModuleType

import pytest
import torch
import torch.distributed as dist

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp import trials
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.kernels import Kernels, choose_kernels
from skills_pipe.training.backends.fsdp.trials import first_that_agrees, tried_attention, tried_loss
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.data.batches import build_microbatch
from skills_pipe.training.distributed import World
from skills_pipe.training.models import liger
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.context import ContextGroup
from skills_pipe.training.models.kernels.loss_cases import ours
from skills_pipe.training.models.loss import SupervisedLoss
from tests.training.backends.scenario import BATCH, SCENARIOS, dataset
from tests.training.models.kernels.documented import flash_attn_varlen_func, kernel
from tests.training.tiny import ARCHITECTURES, tiny_model

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, device=CPU)
BF16 = torch.bfloat16


def install_flash_attention(fault: str | None = None) -> None:
    """A package that can be found and imported, with a function that computes as documented, or with a fault."""
    package = ModuleType("flash_attn")
    package.__spec__ = ModuleSpec("flash_attn", None)
    package.flash_attn_varlen_func = partial(flash_attn_varlen_func, fault=fault) if fault else flash_attn_varlen_func
    sys.modules["flash_attn"] = package


@pytest.fixture
def flash_attention(monkeypatch):
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    return install_flash_attention


def attention_of(architecture="llama", wanted="auto", dtype=BF16, **changes):
    """The name of the kernel that is taken, and what was told."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = tried_attention(tiny_model(architecture, **changes), wanted, dtype, CPU, tensor=1)
    return found and found.name, [str(each.message) for each in told if each.category is trials.KernelWarning]


def test_one_that_agrees_is_taken_without_a_word(flash_attention):
    flash_attention()
    assert attention_of() == ("flash-attn", [])
    assert attention_of("mistral", sliding_window=8) == ("flash-attn", [])
    assert attention_of("gemma2") == ("flash-attn", [])


@pytest.mark.parametrize(
    ("fault", "architecture", "changes"),
    [
        ("leaks", "llama", {}),
        ("top left", "llama", {}),
        ("another scale", "gemma3_text", {}),
        ("no window", "mistral", {"sliding_window": 8}),
        ("no window", "mistral", {"sliding_window": 700}),
        ("no cap", "gemma2", {}),
        ("wrong gradients", "gpt2", {}),
    ],
)
def test_one_that_does_not_is_told_and_the_next_is_tried(flash_attention, fault, architecture, changes):
    flash_attention(fault)
    found, told = attention_of(architecture, **changes)
    assert found is None
    assert told[0].startswith("FlashAttention 2 is not used: it is off by ")
    # Torch's own is tried next, and has no kernel for this device. It has none for caps anywhere, which is no news.
    assert [one.startswith("varlen_attn of torch is not used: it cannot be tried: ") for one in told[1:]] == [True] * (
        architecture != "gemma2"
    )
    with pytest.raises(ConfigError, match=r"FlashAttention 2 is off by .*attention_kernel.*set .*=auto"):
        attention_of(architecture, "flash_attn", **changes)


def test_where_none_is_asked_for_or_none_can_be_used_nothing_is_tried(flash_attention):
    flash_attention("leaks")
    assert attention_of(wanted="sdpa") == (None, [])
    assert attention_of(dtype=torch.float32) == (None, [])
    assert attention_of("gpt_oss") == (None, [])
    with pytest.raises(ConfigError, match="computes no layer of this model in this precision"):
        attention_of(wanted="flash_attn", dtype=torch.float32)


def test_layers_that_drop_weights_are_computed_by_no_kernel(flash_attention):
    flash_attention()
    assert attention_of("gpt2")[0] == "flash-attn"
    assert attention_of("gpt2", attn_pdrop=0.1) == (None, [])
    assert attention_of("llama", attention_dropout=0.1) == (None, [])


def test_a_gpu_that_a_kernel_left_unusable_ends_the_job(monkeypatch):
    def broken(device):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    where = {"where": "policy.key", "fix": "set policy.key=sdpa"}
    trials.require_usable(CPU, "flash-attn cannot be tried", **where)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    trials.require_usable(torch.device("cuda"), "flash-attn cannot be tried", **where)
    monkeypatch.setattr(torch.cuda, "synchronize", broken)
    with pytest.raises(
        ConfigError, match=r"cannot be tried, and left the GPU unusable \(policy.key\).*set policy.key=sdpa"
    ):
        trials.require_usable(torch.device("cuda"), "flash-attn cannot be tried", **where)


def test_what_was_installed_under_another_name_is_named_without_a_version(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", missing_package)
    assert Kernels(loss="liger").names == {"attention": "our own, document by document", "loss": "liger-kernel"}


def missing_package(name):
    raise PackageNotFoundError(name)


def test_what_is_not_installed_is_told_to_those_who_asked_for_it(flash_attention):
    with pytest.raises(ConfigError, match="FlashAttention 2 is not installed"):
        attention_of(wanted="flash_attn")
    assert [one for one in attention_of()[1] if "Flash" in one] == []


def test_a_package_that_cannot_be_imported_is_told(flash_attention):
    flash_attention()
    del sys.modules["flash_attn"].flash_attn_varlen_func
    assert "FlashAttention 2 is not used: it cannot be imported: cannot import name" in attention_of()[1][0]


def loss_of(wanted="auto", *, tensor=1, architecture="gemma2", dtype=BF16):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = tried_loss(tiny_model(architecture), wanted, dtype, CPU, tensor=tensor)
    return found, [str(each.message) for each in told if each.category is trials.KernelWarning]


def uncapped(*tensors, softcap=None, **settings):
    return ours(*tensors, **settings)


@pytest.fixture
def liger_is(monkeypatch):
    """Liger that can be found, and computes so."""

    def install(loss):
        package = ModuleType("liger_kernel")
        package.__spec__ = ModuleSpec("liger_kernel", None)
        monkeypatch.setitem(sys.modules, "liger_kernel", package)
        monkeypatch.setattr(liger, "require", lambda device: None)
        monkeypatch.setattr(liger, "summed_by_liger", loss)

    return install


def test_the_loss_by_liger_is_taken_where_it_agrees(liger_is, monkeypatch):
    liger_is(ours)
    assert loss_of() == loss_of("liger") == ("liger", [])
    assert loss_of("chunked") == ("chunked", [])
    assert loss_of(tensor=2) == ("chunked", [])
    liger_is(uncapped)
    found, told = loss_of()
    assert found == "chunked" and told[0].startswith("Liger is not used: it is off by ")
    assert loss_of(architecture="llama") == ("liger", [])
    with pytest.raises(ConfigError, match=r"Liger is off by .*set .*loss_kernel=chunked"):
        loss_of("liger")
    monkeypatch.setitem(sys.modules, "liger_kernel", None)
    assert loss_of() == ("chunked", [])


def test_another_version_of_liger_is_told_and_not_used(liger_is, monkeypatch):
    def require(device):
        raise ConfigError("this version of Liger takes other arguments", where=liger.KEY)

    liger_is(ours)
    monkeypatch.setattr(liger, "require", require)
    assert loss_of() == (
        "chunked",
        ["Liger is not used: it cannot be used: this version of Liger takes other arguments"],
    )
    with pytest.raises(ConfigError, match="takes other arguments"):
        loss_of("liger")


def test_without_a_gpu_nothing_is_tried(flash_attention, monkeypatch):
    flash_attention()
    monkeypatch.delitem(sys.modules, trials.__name__)
    asked = {"dtype": BF16, "layout": Layout(), "device": CPU}
    assert choose_kernels(tiny_model(), attention="auto", loss="auto", **asked) == Kernels()
    assert trials.__name__ not in sys.modules
    with pytest.raises(ConfigError, match=r"flash_attn is for GPUs, and this is cpu .*set .*attention_kernel=auto"):
        choose_kernels(tiny_model(), attention="flash_attn", loss="auto", **asked)
    backend = FsdpBackend(tiny_model(), SCENARIOS["bfloat16"], ALONE)
    assert backend.kernels == {"attention": "our own, document by document", "loss": "our own"}


def verdicts_of(world: World, *, faults: tuple[str | None, ...]) -> tuple[str | None, list[str], str]:
    """What this rank takes, what it tells, and what it raises for one that is asked for by name."""
    install_flash_attention(faults[world.rank])
    try:
        found, told = attention_of()
        try:
            raised = str(attention_of(wanted="flash_attn")[0])
        except ConfigError as error:
            raised = str(error)
    finally:
        del sys.modules["flash_attn"]
    return found, told, raised


@pytest.mark.parametrize("faults", [(None, "leaks"), ("leaks", None)])
def test_ranks_of_which_one_disagrees_fall_back_together(two_ranks, faults):
    first, second = two_ranks(verdicts_of, faults=faults)
    assert first[0] is second[0] is None
    assert first[1][0].startswith("FlashAttention 2 is not used: it is off by ")
    assert first[1][0].endswith(f"(rank {faults.index('leaks')})")
    assert second[1] == []
    assert first[2] == second[2] and "is off by" in first[2]


def test_ranks_that_agree_take_it_together(two_ranks):
    assert two_ranks(verdicts_of, faults=(None, None)) == [("flash-attn", [], "flash-attn")] * 2


def chosen_by(world: World) -> tuple[str | None, dict[str, str]]:
    """``one`` is missing on one rank, ``two`` on both, ``three`` nowhere."""
    missing = "is not installed"
    one = missing if world.rank else None
    return first_that_agrees({"one": lambda: one, "two": lambda: missing, "three": lambda: None, "four": lambda: "no"})


def test_what_one_rank_lacks_is_used_by_none(two_ranks):
    expected = ("three", {"one": "is not installed (rank 1)", "two": "is not installed"})
    assert two_ranks(chosen_by) == [expected, expected]


def gradients(loss, rows):
    value = loss(rows.input_ids, rows.position_ids, rows.labels, Documents.of(rows.cu_seqlens), scale=0.01)
    value.backward()
    return float(value.detach()), {name: one.grad for name, one in loss.model.named_parameters()}


def off(found, expected):
    """The largest relative difference of gradients; small ones are compared with a tenth of all."""
    least = 0.1 * torch.nn.utils.get_total_norm(expected.values())
    return max(float((found[name] - one).norm() / torch.maximum(one.norm(), least)) for name, one in expected.items())


WINDOWS = {"mistral": {"sliding_window": 8}}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_with_a_kernel_is_training_without_one(architecture):
    rows = build_microbatch(dataset(), range(BATCH))
    changes = WINDOWS.get(architecture, {})
    plain = SupervisedLoss(tiny_model(architecture, **changes))
    value, expected = gradients(plain, rows)
    found, by_kernel = gradients(SupervisedLoss(tiny_model(architecture, **changes), attention_kernel=kernel()), rows)

    assert found == pytest.approx(value, rel=2e-6)
    assert off(by_kernel, expected) <= 2e-6
    # The control: one that leaks is seen, but in layers that no kernel takes.
    leaking = gradients(SupervisedLoss(tiny_model(architecture, **changes), attention_kernel=kernel("leaks")), rows)[1]
    assert (off(leaking, expected) > 1e-4) == (architecture != "gpt_oss")


def shared_rows(world: World, *, architecture: str, fault: str | None) -> tuple[float, float]:
    """Ranks that share rows, with a kernel beside one process without: how far loss and gradients are off."""
    rows = build_microbatch(dataset(), range(BATCH))
    changes = WINDOWS.get(architecture, {})
    value, expected = gradients(SupervisedLoss(tiny_model(architecture, **changes)), rows)
    sharing = SupervisedLoss(
        tiny_model(architecture, **changes),
        row_multiple=2 * world.size,
        context=ContextGroup(group=dist.group.WORLD),
        attention_kernel=kernel(fault),
    )
    mine, found = gradients(sharing, rows)
    for one in found.values():
        dist.all_reduce(one)
    return abs(world.sum(mine) - value) / value, off(found, expected)


@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma2"])
def test_ranks_that_share_rows_train_the_same_with_a_kernel(two_ranks, architecture):
    for figures in two_ranks(shared_rows, architecture=architecture, fault=None):
        assert max(figures) <= 2e-6
    # The control: fewer tokens look than are looked at.
    for figures in two_ranks(shared_rows, architecture=architecture, fault="top left"):
        assert max(figures) > 1e-3
