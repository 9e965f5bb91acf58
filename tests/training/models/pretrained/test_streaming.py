"""Weights that are streamed into a model are those that transformers loads, and each rank reads its own shard."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.distributed import World
from skills_pipe.training.models.load import load_model, open_model
from skills_pipe.training.models.pretrained.empty import materialise, parameters_on_meta
from skills_pipe.training.models.pretrained.files import stored_tensors
from skills_pipe.training.models.pretrained.weights import PretrainedWeights
from skills_pipe.training.models.spec import ModelSpec
from tests.training.backends.scenario import SCENARIOS
from tests.training.tiny import ARCHITECTURES, save_tiny_model

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


def by_transformers(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def assert_same(model, reference):
    ours, theirs = model.state_dict(), reference.state_dict()
    assert list(ours) == list(theirs)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    computed, expected = dict(model.named_buffers()), dict(reference.named_buffers())
    assert list(computed) == list(expected)
    assert [name for name in expected if not torch.equal(computed[name], expected[name])] == []


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_is_that_of_transformers_bit_for_bit(architecture, tied, tmp_path):
    save_tiny_model(tmp_path, architecture, tie_word_embeddings=tied)
    reference = by_transformers(tmp_path)
    model = load_model(ModelSpec(name=str(tmp_path)))
    assert_same(model, reference)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert model.generation_config.to_dict() == reference.generation_config.to_dict()


@pytest.mark.parametrize("shards", ["20KB", "5GB"])
def test_bf16_files_of_any_number_become_the_same_fp32_weights(tmp_path, tiny_model_folder, shards):
    by_transformers(tiny_model_folder, torch.bfloat16).save_pretrained(tmp_path, max_shard_size=shards)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards == "20KB")
    assert_same(load_model(ModelSpec(name=str(tmp_path))), by_transformers(tmp_path))


def test_old_files_without_the_prefix_and_with_computed_tables_are_read(tmp_path):
    save_tiny_model(tmp_path, "gpt2", tie_word_embeddings=True)
    reference = by_transformers(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    old = {name.removeprefix("transformer."): value for name, value in weights.items()}
    old |= {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same(load_model(ModelSpec(name=str(tmp_path))), reference)


def test_experts_are_put_together_from_their_matrices(tmp_path):
    save_tiny_model(tmp_path, "qwen3_moe", **EXPERTS)
    assert "model.layers.0.mlp.experts.3.up_proj.weight" in load_file(tmp_path / "model.safetensors")
    config = AutoConfig.from_pretrained(tmp_path)
    with parameters_on_meta():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = PretrainedWeights.of(model, stored_tensors(str(tmp_path)), name="experts")
    materialise(model, torch.device("cpu"))
    weights.fill(model)
    assert_same(model, by_transformers(tmp_path))


def test_nothing_has_memory_before_it_is_materialised(tiny_model_folder):
    model, _ = open_model(ModelSpec(name=str(tiny_model_folder)))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert not any(buffer.is_meta for buffer in model.buffers())


def changed(source, target, change):
    """A copy of a model folder whose tensors went through ``change``."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    weights = load_file(target / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return ModelSpec(name=str(target))


def test_all_that_does_not_fit_is_named_in_one_line(tiny_model_folder, tmp_path):
    def change(weights):
        del weights["model.norm.weight"]
        weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(63, 32)
        weights["score.weight"] = torch.zeros(2, 32)

    with pytest.raises(ConfigError) as caught:
        open_model(changed(tiny_model_folder, tmp_path, change))
    message = str(caught.value)
    assert "model.norm.weight is missing" in message
    assert "model.layers.0.mlp.up_proj.weight has the shape (63, 32), and the model's is (64, 32)" in message
    assert "score.weight has no place in the model" in message
    assert "\n" not in message


def test_tied_weights_that_differ_in_the_files_are_refused_and_equal_ones_are_not(tmp_path):
    folder = save_tiny_model(tmp_path / "model", tie_word_embeddings=True)

    def add(scale):
        return lambda weights: weights.update({"lm_head.weight": weights["model.embed_tokens.weight"] * scale})

    model = load_model(changed(folder, tmp_path / "equal", add(1.0)))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    with pytest.raises(ConfigError, match=r"model\.embed_tokens\.weight and lm_head\.weight are tied .* and differ"):
        open_model(changed(folder, tmp_path / "different", add(2.0)))


def test_pickled_weights_are_refused_with_the_way_to_convert_them(tiny_model_folder, tmp_path):
    shutil.copy(tiny_model_folder / "config.json", tmp_path)
    torch.save(load_file(tiny_model_folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"are pickled \(pytorch_model.bin\).*save_pretrained\('NEW_FOLDER'\)"):
        open_model(ModelSpec(name=str(tmp_path)))


def test_a_file_of_the_index_that_is_not_there_is_named(tiny_model_folder, tmp_path):
    by_transformers(tiny_model_folder).save_pretrained(tmp_path, max_shard_size="20KB")
    gone = sorted(tmp_path.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(ConfigError, match=f"it lacks {gone.name}"):
        open_model(ModelSpec(name=str(tmp_path)))


def test_a_quantized_model_is_refused(tiny_model_folder, tmp_path):
    shutil.copytree(tiny_model_folder, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="is quantized"):
        open_model(ModelSpec(name=str(tmp_path)))


def gathered(world: World, *, folder: str) -> dict[str, torch.Tensor]:
    """A sharded backend filled from ``folder``, put together again."""
    model, weights = open_model(ModelSpec(name=folder))
    numbers = sum(parameter.numel() for parameter in model.parameters())
    backend = FsdpBackend(model, SCENARIOS["float32"], world, weights)
    parameters = dict(backend.trainee.model.named_parameters())
    assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
    held = sum(parameter.to_local().numel() for parameter in parameters.values())
    assert held <= numbers / world.size + 2 * 32 * len(parameters), "a rank holds more than its shard"
    tied = model.config.tie_word_embeddings
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    return {name: parameter.full_tensor().detach().clone() for name, parameter in parameters.items()}


@pytest.mark.parametrize(("architecture", "tied"), [("llama", False), ("qwen3", True), ("gpt2", True)])
def test_four_ranks_together_hold_what_one_process_loads(four_ranks, tmp_path, architecture, tied):
    save_tiny_model(tmp_path, architecture, tie_word_embeddings=tied)
    reference = dict(by_transformers(tmp_path).named_parameters())
    for found in four_ranks(gathered, folder=str(tmp_path)):
        assert found.keys() == reference.keys()
        assert [name for name in found if not torch.equal(found[name], reference[name])] == []


def split_by_columns(world: World, *, folder: str) -> dict[str, torch.Tensor]:
    """As tensor parallelism does: matrices split along their second dimension, the rest along the first."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    model, weights = open_model(ModelSpec(name=folder))
    mesh = init_device_mesh("cpu", (world.size,))
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            placement = Shard(1 if parameter.dim() == 2 else 0)
            split = distribute_tensor(parameter, mesh, [placement], src_data_rank=None)
            module.register_parameter(name, torch.nn.Parameter(split))
    materialise(model, world.device)
    weights.fill(model)
    return {name: parameter.full_tensor().detach().clone() for name, parameter in model.named_parameters()}


def test_matrices_split_by_columns_are_filled_too(two_ranks, tiny_model_folder):
    reference = dict(by_transformers(tiny_model_folder).named_parameters())
    for found in two_ranks(split_by_columns, folder=str(tiny_model_folder)):
        assert [name for name in found if not torch.equal(found[name], reference[name])] == []


def without_filling(world: World, *, folder: str) -> bool:
    model, _ = open_model(ModelSpec(name=folder))
    fully_shard(model)
    materialise(model, world.device)
    reference = dict(by_transformers(folder).named_parameters())
    return all(torch.equal(value.full_tensor(), reference[name]) for name, value in model.named_parameters())


def test_the_comparison_sees_weights_that_were_not_read(two_ranks, tiny_model_folder):
    assert two_ranks(without_filling, folder=str(tiny_model_folder)) == [False, False]
