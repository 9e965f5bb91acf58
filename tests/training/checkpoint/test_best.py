"""Which checkpoint is the best, and what is said of it; who converts it is in ``test_export``."""

import json
import shlex

import pytest

from skills_pipe.training.checkpoint.best import better_than_last
from skills_pipe.training.checkpoint.layout import StepFolder
from tests.training.checkpoint.runs import info_at, new_manager, new_trainee, position_at


@pytest.fixture
def folder(tmp_path):
    """Two checkpoints, of which the first has the lower loss."""
    manager = new_manager(tmp_path / "my run" / "checkpoints")
    trainee = new_trainee()
    for step, loss in ((1, 0.5), (2, 0.7)):
        manager.save(trainee, info_at(step, val__val_loss=loss), position_at(step))
    manager.close()
    return tmp_path / "my run" / "checkpoints"


def test_the_command_that_is_told_names_the_training_whatever_its_path(folder):
    words = shlex.split(better_than_last(folder))
    assert words[:9] == ["the", "best", "checkpoint", "by", "val:val_loss", "is", "step_1,", "not", "the"]
    assert f"--input_model={folder.parent}" in words


@pytest.mark.parametrize("text", ["checkpointing: null\n", "checkpointing: {metric_name: [\n"])
def test_a_configuration_that_does_not_say_what_is_the_best_ends_nothing(folder, text):
    StepFolder(folder / "step_2").config.write_text(text)
    assert better_than_last(folder) is None


@pytest.mark.parametrize(("seen", "told"), [(5, True), (1, False)])
def test_a_best_step_that_was_not_saved_is_told(folder, seen, told):
    path = StepFolder(folder / "step_2").info
    path.write_text(json.dumps(json.loads(path.read_text()) | {"watches": {"early_stopping": {"best_step": seen}}}))
    said = better_than_last(folder)
    assert ("no checkpoint of step_5, where early stopping saw the best" in said) is told
    assert "the best checkpoint by val:val_loss is step_1" in said


CONFIG = "sft: {val_period: %d}\ncheckpointing: {save_period: %d, metric_name: val:val_loss}\n"


@pytest.mark.parametrize(
    ("validated", "saved", "watched", "advice"),
    [
        (5, 2, "val:val_loss", ": set checkpointing.save_period=5 the next time, and it will be kept"),
        (
            5,
            0,
            "val:a/val_loss",
            "save_period=5 and checkpointing.metric_name=val:a/val_loss the next time, and it wil",
        ),
        (5, 5, "val:a/val_loss", ": set checkpointing.metric_name=val:a/val_loss the next time, and it will be kept"),
        (5, 5, "val:val_loss", "saw the best"),
    ],
)
def test_how_the_next_one_is_kept_is_told(folder, validated, saved, watched, advice):
    """Seen at a step that was the lowest, but not by enough to count as better."""
    last = StepFolder(folder / "step_2")
    last.config.write_text(CONFIG % (validated, saved))
    seen = {"metric": watched, "best_step": 1, "lowest_step": 5}
    last.info.write_text(json.dumps(json.loads(last.info.read_text()) | {"watches": {"early_stopping": seen}}))
    said = better_than_last(folder).split("; ")[0]
    assert said.startswith("there is no checkpoint of step_5, where early stopping saw the best")
    assert advice in said and said.endswith("kept") is advice.endswith(("kept", "wil"))


def test_nothing_is_said_without_checkpoints(tmp_path):
    assert better_than_last(tmp_path) is None
