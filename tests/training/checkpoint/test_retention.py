import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import ConfigError
from skills_pipe.training.checkpoint.retention import Retention
from skills_pipe.training.sft import main
from tests.training.checkpoint.runs import info_at, new_manager, new_trainee, position_at, train
from tests.training.sft_arguments import arguments

LOSS = "val:val_loss"


def kept(losses, **rule):
    steps = {step: {} if loss is None else {LOSS: loss} for step, loss in losses.items()}
    obsolete = Retention(**({"metric_name": LOSS} | rule)).obsolete(steps)
    return [step for step in steps if step not in obsolete]


@pytest.mark.parametrize(
    ("losses", "rule", "expected"),
    [
        # the best two, and the latest although it is the worst
        ({10: 1.0, 20: 2.0, 30: 0.5, 40: 9.0}, {"keep_top_k": 2}, [10, 30, 40]),
        ({10: 1.0, 20: 2.0, 30: 0.5, 40: 9.0}, {"keep_top_k": 2, "higher_is_better": True}, [20, 40]),
        # among equals the later step is the better one
        ({10: 1.0, 20: 1.0, 30: 1.0, 40: 2.0}, {"keep_top_k": 1}, [30, 40]),
        # a missing metric and one that is not a number are worse than any value
        ({10: None, 20: math.nan, 30: 5.0, 40: 6.0, 50: None}, {"keep_top_k": 2}, [30, 40, 50]),
        ({10: None, 20: 5.0, 30: math.inf, 40: 1.0}, {"keep_top_k": 3}, [20, 30, 40]),
        # null keeps all periodic ones
        ({10: 1.0, 20: 2.0, 30: 3.0}, {}, [10, 20, 30]),
        # a step off the period (saved when the time ran out) does not compete; the latest stays anyway
        ({10: 2.0, 13: 0.1, 20: 1.0}, {"keep_top_k": 1, "save_period": 10}, [20]),
        ({10: 2.0, 13: 0.1, 20: 1.0}, {"save_period": 10}, [10, 20]),
        ({10: 2.0, 20: 1.0, 23: 9.0}, {"keep_top_k": 1, "save_period": 10}, [20, 23]),
        # the most recent ones besides the best
        ({1: 0.1, 2: 5.0, 3: 4.0, 4: 3.0}, {"keep_top_k": 1, "keep_latest_k": 2}, [1, 3, 4]),
        ({1: 0.1, 2: 5.0}, {"keep_top_k": 1, "keep_latest_k": 10}, [1, 2]),
        # without a metric recency ranks
        ({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}, {"metric_name": None, "keep_top_k": 2}, [3, 4]),
        ({10: 1.0, 9: 2.0}, {"keep_top_k": 1}, [10]),
        # steps that are needed later stay beside the best ones, on the period or off it
        ({10: 1.0, 20: 9.0, 30: 0.5, 33: 8.0, 40: 7.0}, {"keep_top_k": 1, "keep_steps": (20, 33)}, [20, 30, 33, 40]),
        ({10: 1.0, 20: 2.0}, {"keep_top_k": 1, "keep_steps": (15,)}, [10, 20]),
        ({}, {"keep_top_k": 1}, []),
    ],
)
def test_which_steps_stay(losses, rule, expected):
    assert kept(losses, **rule) == expected


@given(
    losses=st.dictionaries(st.integers(1, 50), st.none() | st.floats(allow_infinity=True), min_size=1),
    top=st.none() | st.integers(1, 5),
    latest=st.none() | st.integers(1, 5),
    period=st.none() | st.integers(1, 7),
)
def test_the_latest_always_stays_and_the_rest_is_bounded(losses, top, latest, period):
    steps = kept(losses, keep_top_k=top, keep_latest_k=latest, save_period=period)
    assert max(losses) in steps
    if top is not None:
        assert len(steps) <= top + (latest or 0) + 1


@pytest.mark.parametrize("name", ["val_loss", "validation:loss", ""])
def test_a_metric_must_say_whose_it_is(name):
    with pytest.raises(ConfigError, match=f"write 'val:{name}' or 'train:{name}'"):
        Retention(metric_name=name)


def test_the_manager_deletes_what_the_rule_lets_go(tmp_path):
    rule = Retention(metric_name=LOSS, keep_top_k=1)
    manager = new_manager(tmp_path, retention=rule)
    trainee = new_trainee()
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, 5.0)):
        manager.save(trainee, info_at(step, val__val_loss=loss), position_at(step))
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_2", "step_4"]


def test_a_deletion_cut_short_leaves_nothing_of_the_step(tmp_path, monkeypatch):
    manager = new_manager(tmp_path, retention=Retention(metric_name=LOSS, keep_top_k=0))
    trainee = new_trainee()
    train(trainee, 1)
    manager.save(trainee, info_at(1), position_at(1))
    delete = shutil.rmtree

    def interrupted(path, **settings):
        if not Path(path, "config.yaml").exists() or "step_1" not in Path(path).name:
            return delete(path, **settings)
        Path(path, "config.yaml").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        manager.save(trainee, info_at(2), position_at(2))
    monkeypatch.undo()
    assert [path.name for path in tmp_path.glob("step_*")] == ["step_2"]
    manager.close()
    assert new_manager(tmp_path).resume(new_trainee()).warnings == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".owner-training.json", "step_2"]


@pytest.mark.parametrize(("period", "kept_steps"), [(0, [3, 4]), (1, [1, 2, 3, 4])])
def test_saves_for_recovery_do_not_compete_though_all_that_compete_are_kept(
    tiny_model_folder, chat_data, tmp_path, period, kept_steps
):
    given = arguments(tiny_model_folder, chat_data, tmp_path, "sft.max_num_steps=4", "checkpointing.keep_top_k=null")
    recovery = ["checkpointing.ft_save_period=1", "checkpointing.ft_keep_latest_k=2"]

    assert main([*given, *recovery, f"checkpointing.save_period={period}"]) == 0
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*")) == [f"step_{n}" for n in kept_steps]
