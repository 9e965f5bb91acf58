import json
import math

import pytest

from skills_pipe.training.backends.base import TrainingDiverged
from skills_pipe.training.config.schema.watches import LossSpikesConfig
from skills_pipe.training.watches.guard import StepGuard

SPIKES = LossSpikesConfig(deviations=6.0, window=8)
CALM = [2.0, 2.1, 1.9, 2.05, 1.95, 2.0, 2.1, 1.9]


def told(guard, losses, norm=1.0):
    """Which of the steps are passed over."""
    return [index for index, loss in enumerate(losses) if guard.judge(loss, norm) is not None]


def test_a_jump_of_the_loss_is_passed_over_and_counted():
    guard = StepGuard.of(SPIKES, 0)

    assert told(guard, [*CALM, 9.0, *CALM]) == [8]
    assert guard.passed_over == 1


def test_without_the_option_every_step_with_numbers_counts():
    assert told(StepGuard.of(None, 0), [*CALM, 1e9]) == []


def test_a_jump_of_the_gradient_norm_counts_like_one_of_the_loss():
    guard = StepGuard.of(SPIKES, 0)
    for index, loss in enumerate(CALM):
        assert guard.judge(loss, 1.0 + index / 100) is None

    assert "gradient norm is 50" in guard.judge(2.0, 50.0)


def test_the_border_is_mean_and_deviations_of_the_window():
    mean, deviation = sum(CALM) / 8, math.sqrt(sum((x - sum(CALM) / 8) ** 2 for x in CALM) / 7)
    border = mean + 6 * deviation
    for value, expected in ((border - 1e-9, []), (border + 1e-9, [8])):
        assert told(StepGuard.of(SPIKES, 0), [*CALM, value]) == expected


def test_too_few_steps_say_nothing_yet():
    assert told(StepGuard.of(SPIKES, 0), [2.0, 2.1, 1.9, 50.0]) == []
    assert told(StepGuard.of(SPIKES, 0), [2.0, 2.1, 1.9, 2.0, 50.0]) == [4]


def test_a_loss_that_stays_high_is_accepted_after_a_while():
    assert told(StepGuard.of(SPIKES, 0), [*CALM, 9.0, 9.1, 9.0, 8.9]) == [8]


def test_a_step_without_numbers_ends_the_run_unless_some_are_allowed():
    with pytest.raises(TrainingDiverged, match="the loss is nan"):
        StepGuard.of(None, 0).judge(math.nan, 1.0)
    guard = StepGuard.of(None, 2)
    assert told(guard, [2.0, math.inf, math.nan, 2.0, math.nan, math.nan]) == [1, 2, 4, 5]
    assert guard.passed_over == 4
    with pytest.raises(TrainingDiverged, match="norm of the gradients inf"):
        guard.judge(2.0, math.inf)


def test_steps_without_numbers_do_not_enter_the_window():
    guard = StepGuard.of(SPIKES, 99)
    told(guard, [*CALM, math.nan, math.inf])

    assert guard.losses == CALM


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_guard_that_went_through_a_checkpoint_judges_as_the_one_that_did_not(cut):
    losses = [*CALM, 9.0, math.nan, math.nan, *CALM[:5]]
    whole, first = StepGuard.of(SPIKES, 2), StepGuard.of(SPIKES, 2)
    expected = told(whole, losses)
    begun = told(first, losses[:cut])
    second = StepGuard.of(SPIKES, 2, json.loads(json.dumps(first.state())))

    assert begun + [cut + index for index in told(second, losses[cut:])] == expected
    assert second.state() == whole.state()
