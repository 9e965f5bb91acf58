"""Adapters from Python: trained in place, saved merged, kept in a file."""

from __future__ import annotations

import pytest
import torch

from skills_pipe.errors import CheckpointError
from skills_pipe.training.api import HuggingFaceModel
from skills_pipe.training.models.lora import adapted_modules
from tests.training.api.seed import alpaca_rows, tiny_folder
from tests.training.api.test_trainer import equal, trainer, weights

ROWS = alpaca_rows(4)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / "llama", "llama", attention_dropout=0.1)


def adapting(base, tmp_path, *, steps=4, precision="float32", **lora):
    policy = {
        "precision": precision,
        "lr": 1e-2,
        "dtensor_cfg": {"lora_cfg": {"enabled": True, "dropout": 0.1, **lora}},
    }
    return trainer(base, tmp_path, steps=steps, policy=policy)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_saved_model_is_the_trained_one(base, tmp_path, precision):
    made = adapting(base, tmp_path, precision=precision, use_dora=True)
    before = made.model.eval()(ROWS).loss.item()
    made.train()
    made.model.save_pretrained(tmp_path / "saved")

    again = HuggingFaceModel.from_pretrained(tmp_path / "saved")
    assert len(adapted_modules(made.model.module)) == 14 and not adapted_modules(again.module)
    found = made.model.eval()(ROWS).loss.item()
    assert found < before
    assert again(ROWS).loss.item() == pytest.approx(found, rel=1e-5 if precision == "float32" else 1e-2)
    assert isinstance(made.model.generate("Add 1 and 2.", max_length=24), str)


def test_a_training_saved_in_a_file_goes_on_bit_for_bit(base, tmp_path):
    whole = adapting(base, tmp_path)
    whole.train()
    first = adapting(base, tmp_path, steps=2)
    first.train()
    first.save_checkpoint(tmp_path / "half.pt")
    second = adapting(base, tmp_path)
    second.load_checkpoint(tmp_path / "half.pt")
    halfway = weights(second)
    second.train()

    assert equal(weights(second), weights(whole))
    assert not equal(halfway, weights(whole))
    stored = torch.load(tmp_path / "half.pt", weights_only=True)
    assert not any("embed" in str(name) for name in _names(stored))
    with pytest.raises(CheckpointError, match="of another kind of adapters"):
        adapting(base, tmp_path, dim=4).load_checkpoint(tmp_path / "half.pt")


def _names(value):
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            yield from _names(item)
