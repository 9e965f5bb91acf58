"""Which layers get an adapter, and its first values."""

from __future__ import annotations

import math

import pytest
import torch

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.models.lora import adapted_modules, add_adapters, initialise
from tests.training.tiny import tiny_model

ALL = AdapterSpec(dim=4, alpha=8)


def with_adapters(spec=ALL, *, seed=1, architecture="llama", **changes):
    model = tiny_model(architecture, **changes)
    add_adapters(model, spec)
    initialise(model, spec, seed=seed)
    return model


def first_matrices(model):
    return {name: module.lora_A.weight.detach().clone() for name, module in adapted_modules(model).items()}


def test_all_linear_layers_but_the_output_layer():
    names = list(adapted_modules(with_adapters()))
    assert len(names) == 14
    assert {name.rpartition(".")[2] for name in names} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }


def test_names_and_shapes_of_the_parameters():
    model = with_adapters(AdapterSpec(dim=4, alpha=8, targets=("*.0.*.k_proj",), decomposed=True))
    found = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    base = "model.layers.0.self_attn.k_proj"
    assert found == {
        f"{base}.lora_magnitude_vector.weight": (16,),
        f"{base}.lora_A.weight": (4, 32),
        f"{base}.lora_B.weight": (16, 4),
    }


def test_the_names_of_the_base_weights_stay():
    assert set(tiny_model().state_dict()) <= set(with_adapters().state_dict())


def test_tied_weights_stay_tied():
    model = with_adapters(architecture="qwen2", tie_word_embeddings=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_first_values_depend_on_seed_and_name_alone():
    one = first_matrices(with_adapters())
    torch.manual_seed(99)
    some = first_matrices(with_adapters(AdapterSpec(dim=4, alpha=8, targets=("q_proj",))))
    other = first_matrices(with_adapters(seed=2))

    assert all(torch.equal(one[name], some[name]) for name in some)
    assert not any(torch.equal(one[name], other[name]) for name in one)
    values = list(one.values())
    assert not torch.equal(values[0], values[7]), "layers of one shape differ"


def test_xavier_is_normal_and_uniform_is_that_of_a_linear_layer():
    sizes = {"hidden_size": 512, "num_hidden_layers": 1}
    normal = first_matrices(with_adapters(AdapterSpec(dim=64, alpha=1, targets=("q_proj",)), **sizes))
    uniform_spec = AdapterSpec(dim=64, alpha=1, targets=("q_proj",), initial="uniform")
    uniform = first_matrices(with_adapters(uniform_spec, **sizes))

    (drawn,) = normal.values()
    deviation = math.sqrt(2 / (512 + 64))
    assert drawn.std().item() == pytest.approx(deviation, rel=0.02)
    assert drawn.abs().max() > 3 * deviation
    (drawn,) = uniform.values()
    bound = 1 / math.sqrt(512)
    assert bound * 0.99 < drawn.abs().max() <= bound
    assert drawn.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)


def test_the_same_adapters_again_are_kept():
    model = with_adapters()
    before = first_matrices(model)
    assert add_adapters(model, ALL) == tuple(before)
    assert all(torch.equal(value, before[name]) for name, value in first_matrices(model).items())


def test_other_adapters_on_top_are_refused():
    with pytest.raises(ConfigError, match="adapters of another kind already"):
        add_adapters(with_adapters(), AdapterSpec(dim=8, alpha=8))


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(ConfigError, match="no linear layer of the model is left"):
        with_adapters(architecture="gpt2")
