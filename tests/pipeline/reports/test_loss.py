"""The loss of a training stage, from the metrics beside its logs."""

from __future__ import annotations

import json

import pytest

from skills_pipe.pipeline.reports import loss
from skills_pipe.pipeline.reports.loss import loss_of
from tests.pipeline.programs import training_plan
from tests.pipeline.reports.recorded import recorded


@pytest.fixture
def run(tmp_path):
    (tmp_path / "logs").mkdir()
    return recorded(tmp_path, training_plan(tmp_path, "step", jobs=2))


def write(tmp_path, *lines):
    (tmp_path / "logs" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_steps_of_all_jobs_are_one_curve(run, tmp_path):
    write(
        tmp_path,
        {"step": 1, "train/loss": 2.0},
        {"step": 2, "train/loss": None},
        {"step": 2, "validation/val_loss": 1.9},
        {"step": 3, "train/loss": 1.5},
    )
    curves = loss_of(run, "sft")
    assert (curves.loss.steps, curves.loss.values) == ((1, 3), (2.0, 1.5))
    assert (curves.validation.steps, curves.validation.values) == ((2,), (1.9,))


def test_before_the_first_step_there_is_no_curve(run, tmp_path):
    assert loss_of(run, "sft") is None
    write(tmp_path, {"step": 0, "validation/val_loss": 3.0})
    assert loss_of(run, "sft") is None


def test_a_stage_that_trains_nothing_has_none(run, tmp_path):
    write(tmp_path, {"step": 1, "train/loss": 2.0})
    assert loss_of(run, "convert") is None


def test_of_a_very_long_run_the_end_is_drawn(run, tmp_path, monkeypatch):
    monkeypatch.setattr(loss, "_MOST_BYTES", 100)
    write(tmp_path, *({"step": step, "train/loss": 1.0} for step in range(1000)))
    steps = loss_of(run, "sft").loss.steps
    assert steps[-1] == 999 and 1 <= len(steps) < 10
