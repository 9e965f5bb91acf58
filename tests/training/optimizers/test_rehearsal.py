"""Rates that a schedule will give, and schedules that cannot be stepped to the end of a run."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import ObjectConfig, SchedulerConfig
from skills_pipe.training.distributed import World
from skills_pipe.training.optimizers.rehearsal import rehearse
from skills_pipe.training.sft import main
from tests.training.sft_arguments import arguments
from tests.training.test_sft import saved_steps, verdict
from tests.training.tiny import tiny_model

ADAMW = ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": 1e-3})


def schedule(name, **kwargs):
    return SchedulerConfig(parts=(part(name, **kwargs),), milestones=())


def part(name, **kwargs):
    return ObjectConfig(name=f"torch.optim.lr_scheduler.{name}", kwargs=kwargs)


FAILING = [
    (schedule("CosineAnnealingLR", T_max=0), r"CosineAnnealingLR\(T_max=0\) fails after step 1 of 6: .*zero"),
    (schedule("StepLR", step_size=0), r"StepLR\(step_size=0\) fails after step 1 of 6: .*zero"),
    (
        schedule("OneCycleLR", max_lr=1e-3, total_steps=4),
        r"OneCycleLR.* fails after step 5 of 6: Tried to step 5 times",
    ),
    (
        SchedulerConfig(parts=(part("ConstantLR"), part("StepLR", step_size=0)), milestones=(3,)),
        r"ConstantLR\(\) and then StepLR\(step_size=0\) fails after step \d of 6",
    ),
]


@pytest.mark.parametrize(("given", "message"), FAILING)
def test_a_schedule_that_fails_at_some_step_is_one_line(given, message):
    with pytest.raises(ConfigError, match=rf"^{message}.*\(policy\.scheduler\): change its kwargs$"):
        rehearse(ADAMW, given, total_steps=6)


def test_those_that_reach_the_end_of_the_run_tell_each_rate():
    cycle = rehearse(ADAMW, schedule("OneCycleLR", max_lr=1e-3, total_steps=6), total_steps=6)
    assert len(cycle.rates) == 7 and cycle.whole
    halves = rehearse(ADAMW, schedule("StepLR", step_size=1, gamma=0.5), total_steps=2)
    assert halves.rates == ((1e-3,), (5e-4,), (2.5e-4,))
    assert halves.own == rehearse(ADAMW, None, total_steps=2).own == (1e-3,)
    muon = ObjectConfig(name="torch.optim.Muon", kwargs={"lr": 1e-2, "adamw": {"lr": 1e-3}})
    assert rehearse(muon, None, total_steps=2).own == (1e-2, 1e-3)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("steps", [0, 6])
def test_it_ends_the_program_as_a_mistake_of_the_users_does(steps, tiny_model_folder, chat_data, tmp_path, capsys):
    given = f"policy.scheduler={{name: torch.optim.lr_scheduler.CosineAnnealingLR, kwargs: {{T_max: {steps}}}}}"
    ended = main(arguments(tiny_model_folder, chat_data, tmp_path, "sft.max_num_steps=2", given))
    assert ended == (0 if steps else 2)
    if not steps:
        assert capsys.readouterr().err.startswith("CosineAnnealingLR(T_max=0) fails after step 1 of 2")
        assert (verdict(tmp_path).outcome.value, saved_steps(tmp_path)) == ("failed", [])


def built(world: World, given: SchedulerConfig | None) -> str | None:
    settings = FsdpSettings(optimizer=ADAMW, scheduler=given, total_steps=6)
    try:
        FsdpBackend(tiny_model(), settings, world)
    except ConfigError as error:
        return error.where
    return None


def test_every_rank_finds_it(two_ranks):
    assert two_ranks(built, given=FAILING[0][0]) == ["policy.scheduler"] * 2
    assert two_ranks(built, given=None) == [None] * 2
