import json
import math

import pytest

from skills_pipe.training.config.schema.watches import EarlyStoppingConfig
from skills_pipe.training.watches.early_stopping import EarlyStopping

METRIC = "val:val_loss"


def settings(patience=2, min_delta=0.0, metric=METRIC):
    return EarlyStoppingConfig(patience=patience, metric=metric, min_delta=min_delta)


def ended_at(stopping, losses):
    """The validation after which training is over, from 1; None when it never is."""
    for step, loss in enumerate(losses, start=1):
        stopping.observe(step, {METRIC: loss})
        if stopping.sentence:
            return step
    return None


@pytest.mark.parametrize(
    ("losses", "patience", "ended"),
    [
        ([3.0, 2.0, 2.5, 2.1], 2, 4),
        ([3.0, 2.0, 2.5, 1.9, 2.5, 2.4], 2, 6),
        ([3.0, 3.0], 1, 2),
        ([3.0, 2.9, 2.8, 2.7], 1, None),
        ([3.0, math.nan, math.nan], 2, 3),
        ([math.nan, 3.0, 2.0], 2, None),
    ],
)
def test_training_ends_after_so_many_validations_without_a_better_one(losses, patience, ended):
    assert ended_at(EarlyStopping.of(settings(patience)), losses) == ended


def test_a_little_lower_is_not_better_when_more_is_asked_for():
    losses = [3.0, 2.95, 2.91]

    assert ended_at(EarlyStopping.of(settings(2, min_delta=0.1)), losses) == 3
    assert ended_at(EarlyStopping.of(settings(2)), losses) is None


def test_it_says_what_was_best():
    stopping = EarlyStopping.of(settings(1))
    ended_at(stopping, [2.5, 2.6])

    assert stopping.sentence == "val:val_loss has not fallen in 1 validation: its best is 2.5000 of step 1"


def test_a_loss_that_fell_by_too_little_is_not_said_not_to_have_fallen():
    stopping = EarlyStopping.of(settings(2, min_delta=5))
    assert ended_at(stopping, [4.8098, 4.5, 4.24]) == 3
    assert stopping.sentence == (
        "val:val_loss has fallen by no more than 5 (min_delta) in 2 validations, from 4.8098 of step 1: "
        "its best is 4.2400 of step 3"
    )
    assert (stopping.best_step, stopping.lowest_step) == (1, 3)
    rising = EarlyStopping.of(settings(2, min_delta=5))
    assert ended_at(rising, [4.0, 4.5, 4.24]) == 3
    assert rising.sentence == "val:val_loss has not fallen in 2 validations: its best is 4.0000 of step 1"


def test_the_lowest_is_remembered_and_a_checkpoint_that_does_not_know_it_is_read():
    first = EarlyStopping.of(settings(3, min_delta=1))
    ended_at(first, [2.0, 1.5])
    assert EarlyStopping.of(settings(3), first.state()).lowest_step == 2
    older = {name: value for name, value in first.state().items() if not name.startswith("lowest")}
    again = EarlyStopping.of(settings(3), older)
    assert (again.lowest, again.lowest_step) == (2.0, 1)


def test_other_metrics_and_no_settings_end_nothing():
    assert ended_at(EarlyStopping.of(None), [1.0, 2.0, 3.0]) is None
    assert ended_at(EarlyStopping.of(settings(1, metric="val:math/val_loss")), [1.0, 2.0, 3.0]) is None


def test_it_goes_on_where_a_checkpoint_left_it():
    first = EarlyStopping.of(settings(2))
    assert ended_at(first, [2.0, 2.5]) is None
    kept = json.loads(json.dumps(first.state()))

    assert ended_at(EarlyStopping.of(settings(2), kept), [2.4]) == 1
    # The configuration is what counts, also for a training that had ended.
    assert ended_at(EarlyStopping.of(settings(3), kept), [2.4]) is None


def test_what_is_remembered_of_one_metric_is_nothing_to_another():
    first = EarlyStopping.of(settings(2))
    ended_at(first, [0.5, 0.6])

    assert EarlyStopping.of(settings(2, metric="val:math/val_loss"), first.state()).best is None
    assert EarlyStopping.of(settings(2), first.state()).best == 0.5
