"""Steps, saves and validations of a run, against a loop that counts them one by one."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config, schedule

CONFIG = load_config(None, ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"])
LIMIT = st.one_of(st.none(), st.integers(1, 12))


def with_limits(epochs, steps, batch):
    return dataclasses.replace(
        CONFIG,
        sft=dataclasses.replace(CONFIG.sft, max_num_epochs=epochs, max_num_steps=steps),
        policy=dataclasses.replace(CONFIG.policy, train_global_batch_size=batch),
    )


@given(LIMIT, LIMIT, st.integers(1, 8), st.integers(1, 40))
def test_steps_are_counted_as_a_loop_over_the_data_counts_them(epochs, steps, batch, samples):
    if epochs is None and steps is None:
        epochs = 1
    config = with_limits(epochs, steps, batch)
    if samples < batch:
        with pytest.raises(ConfigError, match="fewer than one global batch"):
            schedule.total_steps(config, samples)
        return
    done, epoch = 0, 0
    while (epochs is None or epoch < epochs) and (steps is None or done < steps):
        for start in range(0, samples, batch):
            if start + batch <= samples and (steps is None or done < steps):
                done += 1
        epoch += 1
    assert schedule.total_steps(config, samples) == done


@given(st.integers(0, 5), st.one_of(st.none(), st.integers(1, 5)), st.integers(1, 12))
def test_saves_are_periodic_and_always_last(period, extra, total):
    settings = dataclasses.replace(CONFIG.checkpointing, save_period=period, ft_save_period=extra)
    saved = [step for step in range(1, total + 1) if schedule.is_save_step(settings, step, total)]
    expected = {total} | set(range(period, total + 1, period) if period else ())
    expected |= set(range(extra, total + 1, extra) if extra else ())
    assert saved == sorted(expected)
    off = dataclasses.replace(settings, enabled=False)
    assert not any(schedule.is_save_step(off, step, total) for step in range(1, total + 1))


@given(st.integers(0, 5), st.booleans(), st.integers(1, 12))
def test_validations_are_periodic_and_last_when_asked(period, at_end, total):
    sft = dataclasses.replace(CONFIG.sft, val_period=period, val_at_end=at_end)
    found = [step for step in range(1, total + 1) if schedule.is_validation_step(sft, step, total)]
    assert found == sorted(set(range(period, total + 1, period) if period else ()) | ({total} if at_end else set()))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:00:00", 0),
        ("00:03:45:00", 13500),
        ("1:00:00:01", 86401),
        ("99:23:45:00", 8639100),
        ("00:48:00:00", 172800),
    ],
)
def test_durations(text, seconds):
    assert schedule.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "03:45:00", "00:03:45", "1-00:00:00", "00:03:45:0x", "00:00:00:-1", "13500"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ConfigError, match="no duration"):
        schedule.seconds(text)
