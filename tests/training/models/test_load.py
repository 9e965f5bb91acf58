from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from skills_pipe.errors import ConfigError
from skills_pipe.training.models.attention import IMPLEMENTATION
from skills_pipe.training.models.load import load_model
from skills_pipe.training.models.positions import check_positions
from skills_pipe.training.models.spec import ModelSpec
from tests.training.tiny import ARCHITECTURES, save_tiny_model, tiny_config


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_family_loads_with_the_weights_of_its_folder(architecture, tmp_path):
    folder = save_tiny_model(tmp_path / "model", architecture)
    model = load_model(ModelSpec(name=str(folder)))

    assert model.config._attn_implementation == IMPLEMENTATION
    saved = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in saved.items())


def test_master_weights_are_fp32_whatever_the_folder_holds(tmp_path):
    folder = save_tiny_model(tmp_path / "model")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)

    assert {parameter.dtype for parameter in load_model(ModelSpec(name=str(folder))).parameters()} == {torch.float32}


def test_tied_weights_are_one_parameter(tmp_path):
    model = load_model(ModelSpec(name=str(save_tiny_model(tmp_path / "tied", tie_word_embeddings=True))))

    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_overrides_change_the_configuration(tiny_model_folder):
    spec = ModelSpec(name=str(tiny_model_folder), overrides={"attention_dropout": 0.25})

    assert load_model(spec).config.attention_dropout == 0.25


def test_an_override_that_the_model_does_not_know_is_an_error(tiny_model_folder):
    with pytest.raises(ConfigError, match=r"attention_drop is no key.*policy\.hf_config_overrides"):
        load_model(ModelSpec(name=str(tiny_model_folder), overrides={"attention_drop": 0.25}))


def test_an_unproven_family_is_refused_with_the_list_of_proven_ones(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "stablelm"}))

    with pytest.raises(ConfigError, match=r"'stablelm' are not supported.*llama, mistral, .*, gpt2"):
        load_model(ModelSpec(name=str(tmp_path)))


def test_a_missing_weight_is_an_error_and_never_a_random_start(tiny_model_folder, tmp_path):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ConfigError, match=r"do not fit: model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        load_model(ModelSpec(name=str(folder)))


def test_a_folder_that_does_not_exist_is_named():
    with pytest.raises(ConfigError, match=r"no model '/nowhere/model'"):
        load_model(ModelSpec(name="/nowhere/model"))


def test_a_folder_without_weights_is_named(tiny_model_folder, tmp_path):
    shutil.copy(tiny_model_folder / "config.json", tmp_path)

    with pytest.raises(ConfigError, match="cannot be read as a Hugging Face model"):
        load_model(ModelSpec(name=str(tmp_path)))


def test_an_archive_is_to_be_unpacked_first(tmp_path):
    archive = tmp_path / "model.nemo"
    archive.write_bytes(b"packed")

    with pytest.raises(ConfigError, match=rf"is an archive, not a folder .*unpack --archive={archive} --output=FOLDER"):
        load_model(ModelSpec(name=str(archive)))


def test_documents_beyond_the_positions_that_gpt2_has_learnt_are_refused():
    config = tiny_config("gpt2", max_position_embeddings=64)
    check_positions(config, longest=64)
    with pytest.raises(ConfigError, match="65 tokens, and the model has 64 positions"):
        check_positions(config, longest=65)


def test_rotary_positions_have_no_such_end():
    check_positions(tiny_config("llama", max_position_embeddings=64), longest=65)
