"""A whole training that saves in the background leaves what one that waits for its saves leaves."""

from __future__ import annotations

from pathlib import Path

import torch

from skills_pipe.training.checkpoint.stored_weights import StoredWeights
from skills_pipe.training.sft import main
from tests.training.sft_arguments import arguments

BACKGROUND = ["checkpointing.is_async=true", "checkpointing.save_period=3"]
STEPS = ["step_3", "step_6", "step_9", "step_10"]


def weights(output: Path, step: str) -> dict[str, torch.Tensor]:
    stored = StoredWeights(output / "checkpoints" / step / "policy" / "weights")
    return {name: torch.cat([piece.clone() for piece in stored.pieces(name)]) for name in stored.tensors}


def test_every_step_is_there_with_the_same_bits_whether_waited_for_or_not(tiny_model_folder, chat_data, tmp_path):
    waited, background = tmp_path / "waited", tmp_path / "background"
    assert main([*arguments(tiny_model_folder, chat_data, waited), "checkpointing.save_period=3"]) == 0
    began = [*arguments(tiny_model_folder, chat_data, background), *BACKGROUND]
    # In two jobs: what a background save wrote is resumed from.
    assert main([*began, "checkpointing.stop_after_steps=6"]) == 75
    assert main(began) == 0
    for step in STEPS:
        one, other = weights(waited, step), weights(background, step)
        assert one.keys() == other.keys()
        assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert (background / "checkpoints" / "manifest.json").is_file()
