"""Optimizers and schedules are named by import path; a short name is answered with what to write."""

from __future__ import annotations

import pytest
import torch

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config
from skills_pipe.training.config.rules.classes import _OPTIMIZERS
from skills_pipe.training.optimizers.build import build_optimizer, build_scheduler

NEEDED = ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"]


def refused(*overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [*NEEDED, *overrides])
    return caught.value


@pytest.mark.parametrize("name", ["AdamW", "adamw"])
def test_a_short_name_of_an_optimizer_is_answered_with_its_import_path(name):
    problem = refused(f"++policy.optimizer.name={name}")
    assert problem.where == f"override '++policy.optimizer.name={name}'"
    assert problem.fix == "write torch.optim.AdamW"
    assert load_config(None, [*NEEDED, "++policy.optimizer.name=torch.optim.AdamW"]).policy.optimizer


def test_all_that_are_answered_so_are_optimizers():
    classes = [getattr(torch.optim, path.removeprefix("torch.optim.")) for path in _OPTIMIZERS.values()]
    assert all(issubclass(each, torch.optim.Optimizer) for each in classes)
    assert not hasattr(torch.optim, "AdamX")


def test_any_other_word_is_answered_with_an_example():
    problem = refused("++policy.optimizer.name=lion")
    assert problem.fix == "write one, such as torch.optim.AdamW"


@pytest.mark.parametrize(("name", "last"), [("cosine", 0.0), ("linear", 0.0), ("Cosine", 0.0)])
def test_a_short_name_of_a_schedule_is_answered_with_one_that_falls_to_nothing(name, last):
    problem = refused(f"++policy.scheduler={{name: {name}}}")
    assert "is the import path of a class" in problem.what
    assert problem.fix is not None

    written = problem.fix.removeprefix("write ").replace("1000", "4")
    policy = load_config(None, [*NEEDED, "policy.lr=1", f"++policy.scheduler={written}"]).policy
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(1))], policy.optimizer)
    scheduler = build_scheduler(optimizer, policy.scheduler)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == 1
    assert rates[2] == pytest.approx(0.5)
    assert rates[4] == pytest.approx(last)


def test_so_is_one_in_a_list():
    written = "[{name: linear}, {name: torch.optim.lr_scheduler.ConstantLR}, {milestones: [3]}]"
    assert "torch.optim.lr_scheduler.LinearLR" in str(refused(f"++policy.scheduler={written}"))
