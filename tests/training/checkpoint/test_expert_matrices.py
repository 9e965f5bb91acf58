"""Tensors of all experts come out as the matrices of the family's files, whatever the order and size of pieces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.checkpoint.expert_matrices import FAMILIES, ExpertMatrices
from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.checkpoint.safetensors_file import Tensor
from skills_pipe.training.models.load import load_model
from skills_pipe.training.models.spec import ModelSpec
from tests.training.checkpoint.runs import equal_models, new_trainee, save_steps

EXPERTS, INNER, WIDTH = 3, 4, 5
GATE_UP = torch.arange(EXPERTS * 2 * INNER * WIDTH, dtype=torch.float32).view(EXPERTS, 2 * INNER, WIDTH)
DOWN = -torch.arange(EXPERTS * WIDTH * INNER, dtype=torch.float32).view(EXPERTS, WIDTH, INNER)
NORM = torch.ones(7)
LAYER = "model.layers.0.mlp.experts"

EXPECTED = {"model.norm.weight": NORM}
for expert in range(EXPERTS):
    EXPECTED |= {
        f"{LAYER}.{expert}.gate_proj.weight": GATE_UP[expert, :INNER],
        f"{LAYER}.{expert}.up_proj.weight": GATE_UP[expert, INNER:],
        f"{LAYER}.{expert}.down_proj.weight": DOWN[expert],
    }


class InMemory:
    """Weights that are read in pieces of so many values, into one buffer; counts how often a tensor is opened."""

    def __init__(self, size: int) -> None:
        self._values = {f"{LAYER}.gate_up_proj": GATE_UP, "model.norm.weight": NORM, f"{LAYER}.down_proj": DOWN}
        self._size = size
        self.opened: list[str] = []

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {
            name: Tensor(name=name, dtype=value.dtype, shape=tuple(value.shape)) for name, value in self._values.items()
        }

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        self.opened.append(name)
        buffer = torch.empty(self._size)
        for piece in self._values[name].flatten().split(self._size):
            yield buffer[: len(piece)].copy_(piece)


def read(weights: ExpertMatrices, name: str) -> torch.Tensor:
    return torch.cat([piece.clone() for piece in weights.pieces(name)]).view(weights.tensors[name].shape)


@given(st.permutations(list(EXPECTED)), st.integers(1, 200))
def test_any_order_gives_the_values_of_each(order, size):
    weights = ExpertMatrices(InMemory(size))
    assert weights.tensors.keys() == EXPECTED.keys()
    for name in order:
        assert torch.equal(read(weights, name), EXPECTED[name])


def test_in_their_own_order_every_tensor_is_read_once():
    stored = InMemory(11)
    weights = ExpertMatrices(stored)
    for name in weights.tensors:
        assert torch.equal(read(weights, name), EXPECTED[name])
    assert stored.opened == [*stored.tensors]


def test_other_tensors_of_a_like_name_stay_as_they_are():
    stored = InMemory(11)
    stored._values = {"model.experts.gate_up_proj": torch.ones(2, 2), "model.experts.gate_up_proj_bias": torch.ones(3)}
    assert ExpertMatrices(stored).tensors.keys() == stored.tensors.keys()


@pytest.mark.parametrize("architecture", FAMILIES)
def test_an_export_is_a_base_model_again(tmp_path, architecture):
    trainee = save_steps(tmp_path, 1, trainee=new_trainee(architecture=architecture))
    exported = export(Export(training_folder=tmp_path, output=tmp_path / "hf"))
    assert equal_models(load_model(ModelSpec(name=str(exported))), trainee.model)
