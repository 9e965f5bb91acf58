"""Weights in host memory, compute on a device: the steps of one process, and everything where it belongs.

The device is ``tests/training/standin``, which a C++ compiler makes; the same tests run on GPUs where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from skills_pipe.training.backends.fsdp import build as build_module
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.carry_out import carry_out
from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.config import load_config
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models.load import open_model
from skills_pipe.training.models.spec import ModelSpec
from skills_pipe.training.setup import build_run, load_parts
from skills_pipe.training.sft import main
from skills_pipe.training.signals import SignalListener
from tests.slurm.availability import need, why_not
from tests.training.backends.layouts import ROWS, differences, settings, two_steps
from tests.training.backends.scenario import ADAMW, BATCH, dataset
from tests.training.outputs import logged
from tests.training.ranks.pool import Ranks
from tests.training.sft_arguments import arguments
from tests.training.standin.device import NAME, build
from tests.training.standin.world import computing_on
from tests.training.tiny import tiny_model

pytestmark = pytest.mark.slow

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
LIMIT = 2e-6
OFFLOAD = {"cpu_offload": True}
CASES: Mapping[str, tuple[str, Layout, Mapping[str, Any]]] = {
    "llama": ("llama", Layout(shard=1), {}),
    "tied words": ("qwen2", Layout(shard=1), {}),
    "capped": ("gemma2", Layout(shard=1), {}),
    "gpt2": ("gpt2", Layout(shard=1), {}),
    "experts": ("qwen3_moe", Layout(shard=1), {}),
    "recomputed": ("llama", Layout(shard=1), {"activation_checkpointing": True}),
    "adamw": ("qwen3", Layout(shard=1), {"optimizer": ADAMW}),
    "adapters": ("llama", Layout(shard=1), {"adapters": AdapterSpec(dim=4, alpha=8)}),
    "dora": ("qwen3", Layout(shard=1), {"adapters": AdapterSpec(dim=4, alpha=8, decomposed=True)}),
    "dp2": ("qwen3", Layout(shard=2), {}),
    "dp2, tied words": ("qwen2", Layout(shard=2), {}),
    "dp2, synced each microbatch": ("llama", Layout(shard=2), {"defer_grad_sync": False}),
    "dp2, dora": ("llama", Layout(shard=2), {"adapters": AdapterSpec(dim=4, alpha=8, decomposed=True)}),
    "tp2+sp": ("qwen2", Layout(tensor=2, sequence_parallel=True), {}),
    "cp2": ("llama", Layout(context=2), {}),
    "ep2": ("qwen3_moe", Layout(shard=2, expert=2), {}),
}


@pytest.fixture(scope="module", params=[NAME, "cuda"])
def on_device(request, tmp_path_factory) -> Any:
    """Calls a case on one rank or on two: ``on_device(case, ranks=2, **arguments)``."""
    device, folder = request.param, tmp_path_factory.mktemp(request.param)
    if device == NAME:
        need(why_not("g++"))
        library = str(build(request.config.cache.mkdir(NAME)))
    elif torch.cuda.is_available():
        library = ""
    else:
        pytest.skip("no GPU")
    pools: dict[int, Ranks] = {}

    def call(case: Callable[..., Any], *, ranks: int = 1, **arguments: Any) -> list[Any]:
        if device == "cuda" and torch.cuda.device_count() < ranks:
            pytest.skip(f"fewer than {ranks} GPUs")
        if ranks not in pools:
            (folder / str(ranks)).mkdir()
            pools[ranks] = Ranks(ranks, folder / str(ranks))
        return pools[ranks](elsewhere, inner=case, device=device, library=library, arguments=arguments)

    yield call
    for pool in pools.values():
        pool.close()


def elsewhere(world: World, *, inner: Callable[..., Any], device: str, library: str, arguments: dict[str, Any]) -> Any:
    with computing_on(world, device, library) as here:
        return inner(here, **arguments)


def offloaded(world: World, *, name: str) -> dict[str, Any]:
    family, layout, changes = CASES[name]
    found = two_steps(world, family=family, layout=layout, changes={**changes, **OFFLOAD})
    return {part: on_host(value) if isinstance(value, dict) else value for part, value in found.items()}


def on_host(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu() for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", CASES)
def test_two_steps_are_those_of_one_process_on_the_host(on_device, name):
    family, layout, changes = CASES[name]
    found = on_device(offloaded, ranks=layout.ranks, name=name)[0]

    alone = two_steps(ALONE, family=family, changes=changes)
    wrong = {name: value for name, value in differences(found, alone).items() if not value <= LIMIT}
    assert not wrong


def test_the_comparison_sees_one_number(on_device):
    found = on_device(offloaded, name="llama")[0]
    alone = two_steps(ALONE, family="llama")

    alone["weights"]["model.norm.weight"][0] *= 1 + 1e-4
    assert max(differences(found, alone).values()) > LIMIT


def places(world: World, *, offload: bool) -> dict[str, set[str]]:
    """Where everything lies after a step in half precision, with a moving average and a snapshot for a checkpoint."""
    model = tiny_model("llama")
    changes = {"optimizer": ADAMW, "dtype": torch.bfloat16, "average_decay": 0.5, "cpu_offload": offload}
    backend = FsdpBackend(model, settings(**changes), world)
    trainee, computed = backend.trainee, []
    gradients: list[torch.Tensor] = []
    trainee.optimizer.register_step_pre_hook(lambda *_: gradients.extend(one.grad for one in model.parameters()))
    layer = model.model.layers[0].mlp.up_proj
    layer.register_forward_hook(lambda module, _, output: computed.extend([module.weight.detach(), output]))
    batch = split_batch(dataset(), range(BATCH), ROWS, world.rank, world.size)
    backend.train_step(batch.microbatches, targets=batch.global_weight)
    groups = {
        "weights": model.parameters(),
        "gradients": gradients,
        "optimizer": [value for state in trainee.optimizer.state.values() for value in state.values()],
        "average": trainee.average.state().values(),
        "buffers": model.buffers(),
        "computed": computed,
    }
    found = {name: {local(one).device.type for one in tensors} for name, tensors in groups.items()}
    return found | {"pinned": {str(local(one).is_pinned()) for one in model.parameters()}}


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@pytest.mark.parametrize("ranks", [1, 2])
def test_what_is_kept_lies_on_the_host_and_what_computes_on_the_device(on_device, ranks):
    found = on_device(places, ranks=ranks, offload=True)[0]

    on_host = {name for name, devices in found.items() if devices == {"cpu"}}
    assert on_host == {"weights", "gradients", "optimizer", "average"}
    assert found["pinned"] == {"True"}
    assert "cpu" not in found["buffers"] | found["computed"]


def test_without_the_key_everything_lies_on_the_device(on_device):
    found = on_device(places, ranks=2, offload=False)[0]

    assert not any("cpu" in found[name] for name in ("weights", "gradients", "average", "buffers", "computed"))
    assert found["pinned"] == {"False"}


def weights_on_the_device(world: World, *, folder: str) -> str:
    """A step of a model whose weights were read into the memory of the device."""
    right = build_module.materialise
    build_module.materialise = lambda module, device, storage: right(module, device)
    model, weights = open_model(ModelSpec(name=folder))
    try:
        backend = FsdpBackend(model, settings(**OFFLOAD), world, weights)
        batch = split_batch(dataset(), range(BATCH), ROWS, world.rank, world.size)
        backend.train_step(batch.microbatches, targets=batch.global_weight)
    except RuntimeError as error:
        return str(error)
    finally:
        build_module.materialise = right
    return "went well"


def test_weights_that_are_read_to_the_device_would_be_an_error(on_device, tiny_model_folder):
    found = on_device(weights_on_the_device, folder=str(tiny_model_folder))
    assert "should be materialized on CPU" in found[0]


def trained(world: World, *, overrides: list[str]) -> str:
    """The training program from its parts on: weights from files, checkpoints, validation with answers."""
    config = load_config(None, overrides)
    listener = SignalListener()
    with listener.listening():
        parts = load_parts(config, world)
        return carry_out(build_run(config, parts, world, listener), parts).outcome.value


def program(model: Path, data: Path, output: Path, *extra: str) -> list[str]:
    options = [
        "policy.precision=float32",
        "sft.ema_decay=0.9",
        "sft.val_period=5",
        "++sft.val_answers={num_samples: 3, max_new_tokens: 8}",
        *extra,
    ]
    return arguments(model, data, output, *options, validation=data)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("background", [True, False])
def test_a_run_on_the_device_goes_on_on_the_host_and_is_the_same(
    on_device, tiny_model_folder, chat_data, tmp_path, background
):
    """Streamed weights, gradient clipping, moving average, checkpoints of both kinds, validation, written answers."""
    whole = program(tiny_model_folder, chat_data, tmp_path / "host")
    assert main(whole) == 0
    given = program(tiny_model_folder, chat_data, tmp_path / "both", "policy.dtensor_cfg.cpu_offload=true")
    given += [f"checkpointing.is_async={background}".lower()]

    # Twice on the device, so that it reads a checkpoint of its own.
    for _ in range(2):
        assert on_device(trained, overrides=[*given, "checkpointing.stop_after_steps=4"]) == ["continue"]
    assert main(given) == 0

    for name in ("train/loss", "train/grad_norm", "validation/val_loss", "validation/exact_match"):
        losses, expected = (logged(tmp_path / folder, name) for folder in ("both", "host"))
        assert losses.keys() == expected.keys() and losses
        assert losses == pytest.approx(expected, rel=1e-5), name
    models = [
        export(Export(training_folder=tmp_path / one, output=tmp_path / f"hf-{one}", ema=True, dtype="float32"))
        for one in ("both", "host")
    ]
    ours, theirs = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in models)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=2e-5)
