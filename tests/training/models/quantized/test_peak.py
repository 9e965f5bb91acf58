"""A model is packed as it is read: no process ever holds it in the type of its files."""

from __future__ import annotations

import pytest
import torch

from tests.training.launch import python, run
from tests.training.models.quantized.peft_models import WIDE
from tests.training.tiny import tiny_model

LARGE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 6, "head_dim": 256}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = [tmp_path_factory.mktemp(name) for name in ("small", "large")]
    for folder, sizes in zip(made, (WIDE, LARGE), strict=True):
        tiny_model("llama", **sizes).to(torch.bfloat16).save_pretrained(folder)
    return made


def grown(folders, kind: str) -> int:
    return int(run(python("tests.training.models.quantized.peak", *map(str, folders), kind)).stdout.split()[-1])


@pytest.mark.slow
def test_the_peak_of_reading_is_below_what_the_weights_have_in_bfloat16(folders):
    stored = (folders[1] / "model.safetensors").stat().st_size
    assert stored > 130e6

    assert grown(folders, "nf4") < 0.8 * stored
    assert grown(folders, "bfloat16") > 0.9 * stored
