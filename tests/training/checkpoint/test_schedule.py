"""The schedule of a run that goes on: its state where it is the same, its own formula at the step where it is not."""

import math
from dataclasses import replace

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from skills_pipe.training.checkpoint.schedule import other_schedule
from skills_pipe.training.checkpoint.state import Trainee
from tests.training.checkpoint.runs import (
    RUN,
    info_at,
    new_manager,
    new_trainee,
    other_trainee,
    position_at,
    save_steps,
    train,
)


def test_a_schedule_goes_on_though_the_optimizer_starts_fresh(tmp_path):
    run = replace(RUN, save_optimizer=False)
    trainee = save_steps(tmp_path, 1, 2, 3, run=run)
    resumed = new_trainee(seed=7)
    assert resumed.optimizer.param_groups[0]["lr"] != trainee.optimizer.param_groups[0]["lr"]
    new_manager(tmp_path, run=run).resume(resumed)
    for one in (trainee, resumed):
        train(one, 2)
    assert resumed.optimizer.param_groups[0]["lr"] == trainee.optimizer.param_groups[0]["lr"]


def test_a_new_schedule_starts_after_the_updates_that_were_made(tmp_path):
    """Steps that were passed over did not move the schedule before either."""
    trainee, manager = new_trainee(), new_manager(tmp_path)
    train(trainee, 3)
    manager.save(trainee, info_at(5), position_at(5))
    manager.close()
    uninterrupted, resumed = other_trainee(), other_trainee()
    train(uninterrupted, 3)
    settings = "policy:\n  scheduler: {name: torch.optim.lr_scheduler.CosineAnnealingLR, kwargs: {T_max: 8}}\n"
    point = new_manager(tmp_path, run=replace(RUN, config_yaml=settings)).resume(resumed)

    assert point.info.total_steps == 5
    assert resumed.scheduler.last_epoch == 3
    assert resumed.optimizer.param_groups[0]["lr"] == uninterrupted.optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("length", [6, 12])
def test_a_schedule_that_spans_the_run_is_that_of_the_length_it_has_now(tmp_path, length):
    """The checkpoint's is that of 6 steps, where the learning rate ends at 0; only another one is told."""
    trainee, manager = cosine_over(6), new_manager(tmp_path)
    train(trainee, 6)
    manager.save(trainee, info_at(6), position_at(6))
    manager.close()
    assert trainee.scheduler.get_last_lr() == [0.0]
    uninterrupted, resumed = cosine_over(length), cosine_over(length)
    train(uninterrupted, 6)
    point = new_manager(tmp_path).resume(resumed)

    assert resumed.optimizer.param_groups[0]["lr"] == uninterrupted.optimizer.param_groups[0]["lr"]
    assert resumed.scheduler.state_dict() == uninterrupted.scheduler.state_dict()
    told = "from step 7 on the learning rate is 0.005, where it was to be 0"
    assert [told in warning for warning in point.warnings] == ([] if length == 6 else [True])
    assert all(state["step"] == 6 for state in resumed.optimizer.state.values())


def cosine_over(steps):
    trainee = new_trainee()
    optimizer = torch.optim.AdamW(trainee.model.parameters(), lr=1e-2)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=0, num_training_steps=steps)
    return Trainee(model=trainee.model, optimizer=optimizer, scheduler=schedule)


@pytest.mark.parametrize(
    ("now", "then", "same"),
    [
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]), True),
        (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), False),
        (torch.tensor([1.0]), 1.0, True),
        (None, 1.0, False),
        (math.nan, math.nan, True),
        (0, 1e-22, True),
        (0, 1e-9, False),
        ({"a": [1, None]}, {"a": [1, None]}, True),
    ],
)
def test_states_of_schedules_of_all_kinds_are_compared(now, then, same):
    """None of the comparisons fails: what a class keeps is its own affair."""

    def scheduled(value):
        trainee = without_schedule()
        trainee.optimizer.param_groups[0]["initial_lr"] = 1e-3
        schedule = torch.optim.lr_scheduler.ConstantLR(trainee.optimizer)
        schedule.kept = value
        return replace(trainee, scheduler=schedule)

    saved = scheduled(then).scheduler.state_dict()
    assert (other_schedule(scheduled(now), saved, info_at(1)) is None) is same


class Trapezoid(torch.optim.lr_scheduler.LRScheduler):
    """A schedule that keeps its length in its state, as torch's own do."""

    def __init__(self, optimizer, num_training_steps):
        self.num_training_steps = num_training_steps
        super().__init__(optimizer)

    def get_lr(self):
        return [rate * min(1.0, (self.num_training_steps - self.last_epoch) / 3) for rate in self.base_lrs]


@pytest.mark.parametrize("length", [6, 12])
def test_a_schedule_that_differs_only_later_is_that_of_the_length_it_has_now_too(tmp_path, length):
    """After two steps of 6 or of 12 the rate is the same: it falls over the last three."""

    def trapezoid(steps):
        trainee = without_schedule()
        return replace(trainee, scheduler=Trapezoid(trainee.optimizer, steps))

    trainee, manager = trapezoid(6), new_manager(tmp_path)
    train(trainee, 2)
    manager.save(trainee, info_at(2), position_at(2))
    manager.close()
    resumed = trapezoid(length)
    point = new_manager(tmp_path).resume(resumed)

    assert resumed.scheduler.num_training_steps == length
    assert resumed.scheduler.last_epoch == 2
    told = "another schedule than then, as of a run of another length: num_training_steps 6 -> 12"
    assert [told in warning for warning in point.warnings] == ([] if length == 6 else [True])


@pytest.mark.parametrize("scheduled", [True, False])
def test_a_schedule_may_come_or_go(tmp_path, scheduled):
    """The first rate, which a schedule leaves with the optimizer, is no part of the model."""
    plain, cosine = without_schedule(), cosine_over(12)
    texts = "policy: {scheduler: null}\n", "policy: {scheduler: {name: cosine}}\n"
    (saved, resumed), (then, now) = ((plain, cosine), texts) if scheduled else ((cosine, plain), reversed(texts))
    saved.model(input_ids=torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss.backward()
    saved.optimizer.step()
    manager = new_manager(tmp_path, run=replace(RUN, config_yaml=then))
    manager.save(saved, info_at(1), position_at(1))
    manager.close()
    new_manager(tmp_path, run=replace(RUN, config_yaml=now)).resume(resumed)

    (group,) = resumed.optimizer.param_groups
    assert group["lr"] == (pytest.approx(1e-2 * 0.98296, rel=1e-4) if scheduled else 1e-3)
    assert ("initial_lr" in group) is scheduled
    assert all(state["step"] == 1 for state in resumed.optimizer.state.values())


ADAMW_AT = "policy: {{optimizer: {{name: torch.optim.AdamW, kwargs: {{lr: {}}}}}, scheduler: {}}}\n"


@pytest.mark.parametrize(
    ("then", "now", "told"),
    [
        ((1e-3, None), (5e-3, None), "policy.optimizer changed: from step 2 on the learning rate is 0.005"),
        (
            (1e-3, None),
            (1e-2, 12),
            "policy.optimizer and policy.scheduler changed: from step 2 on the learning rate is",
        ),
        (
            (1e-2, 12),
            (1e-2, 6),
            "policy.scheduler changed: from step 2 on the learning rate is 0.00933, where it was to",
        ),
        (
            (1e-2, 12),
            (1e-2, None),
            "policy.scheduler changed: from step 2 on the learning rate is 0.01, where it was to ",
        ),
        ((1e-3, None), (1e-3, None), None),
    ],
)
def test_a_rate_that_jumps_because_settings_changed_is_told_unless_no_step_is_left(tmp_path, then, now, told):
    def trainee(rate, length):
        made = new_trainee()
        optimizer = torch.optim.AdamW(made.model.parameters(), lr=rate)
        if length is None:
            return Trainee(model=made.model, optimizer=optimizer)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=length)
        return replace(made, optimizer=optimizer, scheduler=schedule)

    def described(rate, length):
        return replace(RUN, config_yaml=ADAMW_AT.format(rate, "null" if length is None else f"{{T_max: {length}}}"))

    saved, manager = trainee(*then), new_manager(tmp_path, run=described(*then))
    saved.model(input_ids=torch.tensor([[1, 2]]), labels=torch.tensor([[1, 2]])).loss.backward()
    saved.optimizer.step()
    if saved.scheduler is not None:
        saved.scheduler.step()
    manager.save(saved, info_at(1), position_at(1))
    manager.close()

    for steps, left in ((None, True), (2, True), (1, False)):
        resumed = trainee(*now)
        manager = new_manager(tmp_path, run=replace(described(*now), total_steps=steps))
        notes = [note for note in manager.resume(resumed).warnings if "the learning rate is" in note]
        manager.close()
        assert len(notes) == (told is not None and left)
        assert not notes or notes[0].startswith(told)
        before = saved.optimizer.param_groups[0]["lr"]
        after = resumed.optimizer.param_groups[0]["lr"]
        assert not notes or notes[0].endswith(f"is {after:.3g}, where it was to be {before:.3g}")


def test_of_a_run_that_ends_at_the_checkpoint_no_other_schedule_is_told(tmp_path):
    trainee, manager = cosine_over(6), new_manager(tmp_path)
    train(trainee, 4)
    manager.save(trainee, info_at(4), position_at(4))
    manager.close()
    for steps in (4, 5):
        manager = new_manager(tmp_path, run=replace(RUN, total_steps=steps))
        notes = manager.resume(cosine_over(steps)).warnings
        manager.close()
        assert ["makes another schedule than then" in note for note in notes] == ([] if steps == 4 else [True])


def without_schedule():
    trainee = new_trainee()
    return Trainee(model=trainee.model, optimizer=torch.optim.AdamW(trainee.model.parameters(), lr=1e-3))
