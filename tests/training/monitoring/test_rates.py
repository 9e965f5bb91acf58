"""Rates that are a mistake more often than not are told before the first step; those that are meant are not."""

from __future__ import annotations

import pytest

from skills_pipe.training.config import ObjectConfig, SchedulerConfig
from skills_pipe.training.monitoring.rates import doubtful_rates
from skills_pipe.training.optimizers.rehearsal import rehearse
from skills_pipe.training.sft import main
from tests.training.sft_arguments import arguments

TORCH = "torch.optim.lr_scheduler"
WARMUP = ObjectConfig(name=f"{TORCH}.LinearLR", kwargs={"start_factor": 0.1, "total_iters": 5})
COSINE = ObjectConfig(name=f"{TORCH}.CosineAnnealingLR", kwargs={"T_max": 10})


def told(*parts, steps, milestones=(), lr=1e-3):
    scheduler = SchedulerConfig(parts=parts, milestones=milestones) if parts else None
    rehearsal = rehearse(ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": lr}), scheduler, total_steps=steps)
    return list(doubtful_rates(rehearsal, scheduler, total_steps=steps))


def part(name, **kwargs):
    return ObjectConfig(name=f"{TORCH}.{name}", kwargs=kwargs)


def of_transformers(name, **kwargs):
    return ObjectConfig(name=f"transformers.{name}", kwargs=kwargs)


RESTARTS = "get_cosine_with_hard_restarts_schedule_with_warmup"
WAVE = "get_cosine_schedule_with_warmup"
LINEAR = "get_linear_schedule_with_warmup"
RISING = "the learning rate never reaches 0.001: it still rises at the last step, "


@pytest.mark.parametrize(
    ("schedule", "steps", "said"),
    [
        (WARMUP, 5, f"{RISING}5, to 0.00082; the warmup of policy.scheduler is as long as the run or longer"),
        (WARMUP, 6, None),
        (of_transformers(LINEAR, num_warmup_steps=10), 8, f"{RISING}8, to 0.0007;"),
        (of_transformers(LINEAR, num_warmup_steps=10), 1, "the learning rate is 0 at every step"),
        (of_transformers(LINEAR, num_warmup_steps=7), 8, None),
        (part("ConstantLR", factor=0.5, total_iters=100), 8, None),
    ],
)
def test_a_warmup_that_is_not_over_at_the_end_is_told(schedule, steps, said):
    found = told(schedule, steps=steps)
    assert len(found) == (said is not None)
    assert said is None or found[0].startswith(said)


@pytest.mark.parametrize(
    ("schedule", "steps", "said"),
    [
        (COSINE, 20, "the learning rate rises again, from 0 at step 11 to 0.000976 at step 20: is the schedule"),
        (COSINE, 11, None),
        (COSINE, 10, None),
        (part("CosineAnnealingWarmRestarts", T_0=10, eta_min=0), 40, None),
        (part("CyclicLR", base_lr=1e-6, max_lr=1e-3, step_size_up=5), 40, None),
        (
            of_transformers(RESTARTS, num_warmup_steps=0, num_cycles=2),
            40,
            0,
        ),
        (of_transformers(WAVE, num_warmup_steps=0), 40, None),
        (
            of_transformers(
                "get_cosine_schedule_with_warmup", num_warmup_steps=0, num_cycles=0.5, num_training_steps=9
            ),
            16,
            "the learning rate rises again, from 0 at step 10 to 0.",
        ),
    ],
)
def test_a_rate_that_rises_again_is_told_unless_that_is_its_nature(schedule, steps, said):
    found = told(schedule, steps=steps)
    assert len(found) == bool(said)
    assert not said or found[0].startswith(said)


def test_each_part_of_a_schedule_is_looked_at_by_itself():
    (said,) = told(WARMUP, COSINE, milestones=(5,), steps=25)
    assert said.startswith("the learning rate rises again, from 0 at step 16 to ")
    assert told(WARMUP, COSINE, milestones=(5,), steps=15) == []
    assert told(COSINE, COSINE, milestones=(10,), steps=20) == [], "a restart that somebody wrote"


def test_a_milestone_behind_the_end_is_told():
    assert told(WARMUP, COSINE, milestones=(9,), steps=9) == [
        "milestone 9 of policy.scheduler is never reached: the run has 9 steps"
    ]
    assert told(WARMUP, COSINE, milestones=(9,), steps=10) == []
    steps = part("MultiStepLR", milestones=[4, 20, 30])
    assert told(steps, steps=8) == ["milestones 20, 30 of policy.scheduler are never reached: the run has 8 steps"]
    assert told(steps, steps=31) == []


def test_a_rate_of_nothing_is_told():
    nothing = "the learning rate is 0 at every step, and the weights stay as they are: "
    assert told(steps=4, lr=0.0) == [f"{nothing}set policy.lr, or the lr of policy.optimizer"]
    assert told(steps=4) == []
    assert told(COSINE, steps=4, lr=0.0) == told(steps=4, lr=0.0)
    assert told(part("ConstantLR", factor=0.0, total_iters=9), steps=4) == [f"{nothing}policy.scheduler makes it so"]
    assert told(part("OneCycleLR", max_lr=1e-3, total_steps=4), steps=4, lr=0.0) == [], "it has a rate of its own"


def test_of_a_run_that_is_longer_than_what_is_rehearsed_only_what_shows_is_told():
    (said,) = told(COSINE, steps=10**6)
    assert said.startswith("the learning rate rises again, from 0 at step 11")
    assert told(part("LinearLR", total_iters=10**5), steps=10**6) == []


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("rate", ["0", "1e-3"])
def test_it_is_a_warning_of_the_start(rate, tiny_model_folder, chat_data, tmp_path, capsys):
    given = arguments(tiny_model_folder, chat_data, tmp_path, "sft.max_num_steps=1", f"policy.lr={rate}")
    assert main(given) == 0
    assert ("warning: the learning rate is 0 at every step, and" in capsys.readouterr().out) is (rate == "0")
