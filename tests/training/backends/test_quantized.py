"""A base in 4 bit in the backend: any number of ranks gives the same, and each holds its rows of packed bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributed.tensor import DTensor

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.config.quantization import QuantizationSpec
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models.load import open_model
from skills_pipe.training.models.lora import adapted_modules
from skills_pipe.training.models.quantized import quantized_matrices
from skills_pipe.training.models.spec import ModelSpec
from tests.training.backends.scenario import BATCH, PACKED, STEPS, Found, dataset, whole
from tests.training.backends.test_adapters import DORA, LORA
from tests.training.backends.test_fsdp import ALONE, assert_same
from tests.training.models.quantized.peft_models import WIDE
from tests.training.tiny import save_tiny_model, tiny_model

NF4 = replace(LORA, quantization=QuantizationSpec())
DOUBLE = replace(LORA, quantization=QuantizationSpec(double=True))
SETTINGS = {
    "nf4": NF4,
    "double": DOUBLE,
    "dora, double": replace(DOUBLE, adapters=DORA),
    "some layers": replace(DOUBLE, adapters=AdapterSpec(dim=3, alpha=8, targets=("*.1.*.q_proj", "down_proj"))),
    "recomputed": replace(NF4, activation_checkpointing=True),
    "recomputed in part": replace(NF4, activation_checkpointing=True, recompute_granularity="selective"),
    "synced each microbatch": replace(DOUBLE, defer_grad_sync=False),
    "bfloat16": replace(DOUBLE, dtype=torch.bfloat16),
    "dora in bfloat16, recomputed": replace(DOUBLE, adapters=DORA, dtype=torch.bfloat16, activation_checkpointing=True),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(architecture="llama"):
        if architecture not in made:
            made[architecture] = str(save_tiny_model(tmp_path_factory.mktemp(architecture), architecture, **WIDE))
        return made[architecture]

    return folder


def opened(settings: FsdpSettings, world: World, folder: str) -> FsdpBackend:
    model, weights = open_model(ModelSpec(name=folder))
    return FsdpBackend(model, settings, world, weights)


def case(world: World, *, settings: FsdpSettings, folder: str) -> Found:
    """Three steps, the loss after them, and everything that the model holds, put together again."""
    backend, data = opened(settings, world, folder), dataset()
    share = settings.layout or Layout()
    losses, norms = [], []
    for step in range(STEPS):
        rank, ranks = world.rank // share.same_rows, world.size // share.same_rows
        batch = split_batch(data, range(step * BATCH, (step + 1) * BATCH), PACKED, rank, ranks)
        result = backend.train_step(batch.microbatches, targets=batch.global_targets)
        losses.append(result.loss)
        norms.append(result.grad_norm)
    batch = split_batch(data, range(BATCH), PACKED, rank, ranks)
    evaluated = backend.evaluate(batch.microbatches) / batch.global_targets
    held = {**dict(backend.trainee.model.named_parameters()), **dict(backend.trainee.model.named_buffers())}
    weights = {name: whole(value).detach() for name, value in held.items()}
    return Found(losses=losses, norms=norms, evaluated=evaluated, weights=weights)


def assert_packed_alike(ours: Found, theirs: Found) -> None:
    names = [name for name, value in theirs.weights.items() if value.dtype == torch.uint8]
    assert len(names) == 28
    assert [name for name in names if not torch.equal(ours.weights[name], theirs.weights[name])] == []


@pytest.mark.parametrize(
    ("name", "architecture"), [*((name, "llama") for name in SETTINGS), ("double", "qwen2"), ("dora, double", "qwen3")]
)
def test_two_ranks_train_as_one_does(two_ranks, folders, name, architecture):
    folder = folders(architecture)
    together = two_ranks(case, settings=SETTINGS[name], folder=folder)[0]
    alone = case(ALONE, settings=SETTINGS[name], folder=folder)

    assert_packed_alike(together, alone)
    loss, weights = (2e-3, 4e-2) if "bfloat16" in name else (1e-6, 2e-6)
    assert_same(together, alone, loss=loss, weights=weights)


@pytest.mark.parametrize("layout", [Layout(shard=4), Layout(replicate=2, shard=2), Layout(shard=2, context=2)], ids=str)
def test_four_ranks_train_as_one_does(four_ranks, folders, layout):
    settings = replace(DOUBLE, layout=layout)
    together = four_ranks(case, settings=settings, folder=folders())[0]
    alone = case(ALONE, settings=DOUBLE, folder=folders())

    assert_packed_alike(together, alone)
    # Sums of gradients over pieces of rows round otherwise, which AdamW makes the most of.
    assert_same(together, alone, loss=1e-6, weights=1e-5 if layout.context > 1 else 2e-6)


def in_other_blocks(world: World, *, settings: FsdpSettings, folder: str) -> Found:
    """The second rank packs its rows with the scales of others: what would be seen if rows and scales came apart."""
    from skills_pipe.training.models.quantized import load

    right = load._pack

    def rolled(name, matrix, weights, readers):
        scales = right(name, matrix, weights, readers)
        return scales.roll(1, dims=0) if world.rank == 1 else scales

    load._pack = rolled
    try:
        return case(world, settings=settings, folder=folder)
    finally:
        load._pack = right


def test_scales_of_other_rows_would_be_noticed(two_ranks, folders):
    wrong = two_ranks(in_other_blocks, settings=NF4, folder=folders())[0]
    alone = case(ALONE, settings=NF4, folder=folders())

    with pytest.raises(AssertionError):
        assert_packed_alike(wrong, alone)
    with pytest.raises(AssertionError):
        assert_same(wrong, alone, loss=1e-4, weights=1e-3)


def test_a_base_that_is_not_quantized_trains_otherwise(folders):
    ours, plain = (case(ALONE, settings=settings, folder=folders()) for settings in (NF4, LORA))

    assert ours.losses != pytest.approx(plain.losses, rel=1e-4)
    assert ours.losses == pytest.approx(plain.losses, rel=0.05)


def test_recomputed_activations_give_the_same_bits(folders):
    kept, *recomputed = (
        case(ALONE, settings=SETTINGS[name], folder=folders()) for name in ("nf4", "recomputed", "recomputed in part")
    )
    for found in recomputed:
        assert found.losses == kept.losses
        assert all(torch.equal(found.weights[name], value) for name, value in kept.weights.items())


def held(world: World, *, folder: str) -> list[tuple[int, int]]:
    """Bytes of each matrix that this rank holds before, and after a step and an evaluation; all are sharded."""
    backend = opened(DOUBLE, world, folder)
    matrices = quantized_matrices(backend.trainee.model).values()

    def now() -> list[int]:
        parts = [(matrix.packed, matrix.scales) for matrix in matrices]
        assert all(isinstance(part, DTensor) for pair in parts for part in pair)
        return [sum(part.to_local().nbytes for part in pair) for pair in parts]

    before = now()
    batch = split_batch(dataset(), range(BATCH), PACKED, world.rank, world.size)
    backend.train_step(batch.microbatches, targets=batch.global_targets)
    backend.evaluate(batch.microbatches)
    return list(zip(before, now(), strict=True))


def test_each_of_four_ranks_holds_a_quarter_of_the_packed_bytes(four_ranks, folders):
    model, _ = open_model(ModelSpec(name=folders()))
    numbers = [module.weight.numel() for name, module in adapters_of(model)]
    for found in four_ranks(held, folder=folders()):
        assert [before for before, _ in found] == [after for _, after in found]
        # Half a byte each, and one for the scale of 64.
        assert [before * 4 for before, _ in found] == [count // 2 + count // 64 for count in numbers]


def adapters_of(model):
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]


def test_all_but_the_adapters_stays_as_it_was(folders):
    backend = opened(SETTINGS["bfloat16"], ALONE, folders())
    model = backend.trainee.model
    before = {name: value.clone() for name, value in model.named_parameters()}
    batch = split_batch(dataset(), range(BATCH), PACKED, 0, 1)
    backend.train_step(batch.microbatches, targets=batch.global_targets)

    types = {torch.float32: ".lora_", torch.uint8: (".weight.packed", ".weight.scales"), torch.bfloat16: ".weight"}
    for name, parameter in model.named_parameters():
        learns = ".lora_" in name
        assert parameter.requires_grad == learns, name
        assert name.endswith(types[parameter.dtype]) or learns, name
        assert torch.equal(parameter, before[name]) != learns, name
    assert len(adapted_modules(model)) == 14


@pytest.mark.parametrize(
    ("architecture", "changes", "message"),
    [
        ("llama", WIDE | {"intermediate_size": 96}, r"the rows of down_proj have 96 weights, .* no whole blocks of 64"),
        ("llama", {}, r"the rows of q_proj, .*o_proj.* have 32 weights"),
        ("qwen3_moe", WIDE, r"the experts of a mixture are one stack of weights"),
    ],
)
def test_models_that_do_not_fit_blocks_are_refused(tmp_path, architecture, changes, message):
    folder = save_tiny_model(tmp_path, architecture, **changes)
    with pytest.raises(ConfigError, match=message):
        opened(NF4, ALONE, str(folder))


def test_a_model_in_memory_is_refused():
    with pytest.raises(ConfigError, match="has its own in memory already"):
        FsdpBackend(tiny_model("llama", **WIDE), NF4, ALONE)
