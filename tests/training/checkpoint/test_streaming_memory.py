"""Exports and averages pass a model through in pieces: their memory does not grow with it."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import torch
from safetensors.torch import load_file

from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.checkpoint.state import Trainee
from tests.training.checkpoint.runs import save_steps
from tests.training.launch import environment, python
from tests.training.tiny import tiny_model

LARGE = {"vocab_size": 20_000, "hidden_size": 1024, "num_hidden_layers": 1}
"""Embedding and output layer of 82 MB each, in float32."""


def made(folder, **sizes):
    """A checkpoint, and two models of it as exports leave them."""
    model = tiny_model("llama", **sizes)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    save_steps(folder, 1, trainee=Trainee(model=model, optimizer=optimizer, scheduler=scheduler))
    first = export(Export(training_folder=folder, output=folder / "hf_model_step_1"))
    shutil.copytree(first, folder / "hf_model_step_2")
    return folder


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return made(tmp_path_factory.mktemp("small")), made(tmp_path_factory.mktemp("large"), **LARGE)


def growth(what, folders):
    command = python("tests.training.checkpoint.files_peak", what, *map(str, folders))
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def test_memory_of_exports_and_averages_stays_far_below_that_of_the_model(folders):
    whole = sum(value.nbytes for value in load_file(folders[1] / "hf_model_step_1" / "model.safetensors").values())

    grown = {what: growth(what, folders) for what in ("export", "average", "load")}

    assert grown["export"] < whole / 4
    assert grown["average"] < whole / 4
    assert grown["load"] > 0.9 * whole, "the control: what holds the whole model is seen"
