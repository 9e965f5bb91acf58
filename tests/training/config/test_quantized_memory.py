"""What a base in 4 bit saves, in bytes that a training really holds, beside the estimate of them."""

from __future__ import annotations

import json

import pytest
import torch

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config.estimate import ModelShape, estimate_memory, operations_per_step
from skills_pipe.training.distributed import World
from skills_pipe.training.models.flops import ModelFlops
from skills_pipe.training.models.load import open_model
from skills_pipe.training.models.quantized import parameter_count, quantized_matrices
from skills_pipe.training.models.spec import ModelSpec
from tests.training.config.test_adapter_memory import policy
from tests.training.config.test_estimate import LLAMA_8B
from tests.training.models.quantized.peft_models import WIDE
from tests.training.tiny import save_tiny_model

LORA, PACKED = "policy.dtensor_cfg.lora_cfg", "policy.dtensor_cfg.quantization"
ADAPTERS = [f"{LORA}.enabled=true", f"{LORA}.dim=4"]
IN_4_BIT = [*ADAPTERS, f"{PACKED}.load_in_4bit=true"]
DOUBLE = [*IN_4_BIT, f"{PACKED}.bnb_4bit_use_double_quant=true"]
ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def held(settings, folder):
    """The model of a backend, and the bytes of its weights as torch has them."""
    model, weights = open_model(ModelSpec(name=str(folder)))
    backend = FsdpBackend(model, FsdpSettings.of(settings), ALONE, weights)
    model = backend.trainee.model
    buffers = [buffer for matrix in quantized_matrices(model).values() for buffer in matrix.buffers()]
    return model, sum(each.nbytes for each in (*model.parameters(), *buffers))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [IN_4_BIT, DOUBLE], ids=["scales in float32", "scales in 8 bit"])
@pytest.mark.parametrize("architecture", ["llama", "phi3"])
def test_bytes_of_weights_and_operations_are_exact(tmp_path, architecture, kind, precision):
    folder = save_tiny_model(tmp_path, architecture, **WIDE)
    settings = policy(f"policy.precision={precision}", *kind)
    shape = ModelShape.of(json.loads((folder / "config.json").read_text()))

    model, found = held(settings, folder)

    estimated = estimate_memory(shape, settings, ranks=1)
    assert found == estimated.weights
    assert parameter_count(model) == shape.parameters + sum(
        each.numel() for each in model.parameters() if each.requires_grad
    )
    length, batch = settings.max_total_sequence_length, settings.train_global_batch_size
    counted = ModelFlops.of(model).of_step([length] * batch, batch * length)
    assert operations_per_step(shape, settings) == pytest.approx(counted, rel=1e-12)


def test_the_matrices_take_a_fraction_of_what_they_take_in_bfloat16(tmp_path):
    folder = save_tiny_model(tmp_path, "llama", **WIDE)
    sizes = {}
    for name, kind in (("bfloat16", ADAPTERS), ("float32 scales", IN_4_BIT), ("8 bit scales", DOUBLE)):
        model, whole = held(policy("policy.precision=bfloat16", *kind), folder)
        outer = [each.nbytes for part, each in model.named_parameters() if ".lora_" in part or "proj" not in part]
        sizes[name] = whole - sum(outer)
    assert sizes["float32 scales"] / sizes["bfloat16"] == 4.5 / 16
    assert sizes["8 bit scales"] / sizes["bfloat16"] == pytest.approx(4.127 / 16, rel=0.01)


def test_a_base_of_8b_in_4_bit_is_smaller_on_one_gpu_and_on_eight():
    shape = ModelShape.of(LLAMA_8B)
    recomputed = "policy.dtensor_cfg.activation_checkpointing=true"
    for ranks in (1, 8):
        whole, packed = (estimate_memory(shape, policy(recomputed, *kind), ranks=ranks) for kind in (ADAPTERS, DOUBLE))
        # Embeddings and output layer stay: 2.1 of 16 GB.
        assert packed.weights < 0.4 * whole.weights
        assert packed.total < whole.total
    one, eight = (estimate_memory(shape, policy(*DOUBLE), ranks=ranks) for ranks in (1, 8))
    assert eight.weights == pytest.approx(one.weights / 8, rel=0.01)
