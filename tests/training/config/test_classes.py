"""Optimizers and schedules are named by import path, and get the arguments that somebody meant for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config
from skills_pipe.training.config.files import load_layers
from skills_pipe.training.config.rate import give_rate
from skills_pipe.training.config.rules.classes import _OPTIMIZERS
from skills_pipe.training.config.schema.policy import ObjectConfig
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
    stepped = build_optimizer([torch.nn.Parameter(torch.zeros(1))], policy.optimizer)
    scheduler = build_scheduler(stepped, policy.scheduler)
    rates = []
    for _ in range(5):
        rates.append(stepped.param_groups[0]["lr"])
        stepped.step()
        scheduler.step()
    assert rates[0] == 1
    assert rates[2] == pytest.approx(0.5)
    assert rates[4] == pytest.approx(last)


def test_so_is_one_in_a_list():
    written = "[{name: linear}, {name: torch.optim.lr_scheduler.ConstantLR}, {milestones: [3]}]"
    assert "torch.optim.lr_scheduler.LinearLR" in str(refused(f"++policy.scheduler={written}"))


def optimizer(*overrides: str, source: Path | None = None) -> dict[str, Any]:
    """Name and arguments that a configuration ends with."""
    made = load_config(source, [*NEEDED, *overrides]).policy.optimizer
    assert made is not None
    build_optimizer([torch.nn.Parameter(torch.zeros(2, 2))], made)
    return {"name": made.name, **made.kwargs}


SGD = "++policy.optimizer.name=torch.optim.SGD"
PACKAGED = {"lr": 1e-6, "weight_decay": 0.01, "betas": [0.9, 0.98], "eps": 1e-8}


@pytest.mark.parametrize(
    ("overrides", "kwargs"),
    [
        ([SGD], {"lr": 1e-6}),
        ([SGD, "policy.lr=0.1"], {"lr": 0.1}),
        (["policy.lr=0.1", SGD], {"lr": 0.1}),
        ([SGD, "policy.weight_decay=0.01"], {"lr": 1e-6, "weight_decay": 0.01}),
        (
            [SGD, "policy.optimizer.kwargs.lr=0.1", "++policy.optimizer.kwargs.momentum=0.9"],
            {"lr": 0.1, "momentum": 0.9},
        ),
        (["policy.optimizer.kwargs.weight_decay=0.01", SGD], {"lr": 1e-6, "weight_decay": 0.01}),
        ([SGD, "++policy.optimizer.kwargs={momentum: 0.9}"], {"lr": 1e-6, "momentum": 0.9}),
        (
            ["++policy.optimizer={name: torch.optim.SGD, kwargs: {lr: 0.1, momentum: 0.9}}"],
            {"lr": 0.1, "momentum": 0.9},
        ),
        (["++policy={optimizer: {name: torch.optim.SGD, kwargs: {momentum: 0.9}}}"], {"lr": 1e-6, "momentum": 0.9}),
    ],
)
def test_another_optimizer_gets_no_arguments_that_nobody_set_for_it(overrides, kwargs):
    assert optimizer(*overrides) == {"name": "torch.optim.SGD", **kwargs}


@pytest.mark.parametrize(
    ("overrides", "kwargs"),
    [
        ([], {}),
        (["++policy.optimizer.name=torch.optim.AdamW"], {}),
        (["++policy.optimizer={name: torch.optim.AdamW, kwargs: {lr: 0.1}}"], {"lr": 0.1}),
        ([SGD, "++policy.optimizer.name=torch.optim.AdamW"], {}),
        (["++policy.optimizer.kwargs.amsgrad=true"], {"amsgrad": True}),
    ],
)
def test_the_packaged_one_keeps_its_arguments(overrides, kwargs):
    assert optimizer(*overrides) == {"name": "torch.optim.AdamW", **PACKAGED, **kwargs}


def test_muon_and_the_adamw_beside_it_have_their_own_decay_rates():
    assert optimizer("++policy.optimizer.name=torch.optim.Muon") == {"name": "torch.optim.Muon", "lr": 1e-6}


def test_what_overrides_give_to_the_wrong_class_stays_and_is_refused():
    with pytest.raises(ConfigError, match=r"torch\.optim\.SGD has no argument 'betas'"):
        optimizer(SGD, "++policy.optimizer.kwargs.betas=[0.9, 0.9]")


def test_arguments_of_a_file_stay_with_another_name_and_go_with_another_section(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("policy: {optimizer: {name: torch.optim.SGD, kwargs: {lr: 0.1, momentum: 0.9}}}")
    rms = "torch.optim.RMSprop"
    assert optimizer(f"policy.optimizer.name={rms}", source=path) == {"name": rms, "lr": 0.1, "momentum": 0.9}
    made = optimizer("++policy.optimizer={name: torch.optim.Adam, kwargs: {lr: 0.2}}", source=path)
    assert made == {"name": "torch.optim.Adam", "lr": 0.2}
    same = optimizer("++policy.optimizer={name: torch.optim.SGD, kwargs: {lr: 0.2}}", source=path)
    assert same == {"name": "torch.optim.SGD", "lr": 0.2, "momentum": 0.9}


@pytest.mark.parametrize(
    ("section", "overrides", "kwargs"),
    [
        ("{name: torch.optim.AdamW, kwargs: {eps: 1.0e-6}}", [], {"lr": 2e-5, "eps": 1e-6}),
        ("{name: torch.optim.AdamW}", [], {"lr": 2e-5}),
        ("{name: torch.optim.AdamW}", ["policy.lr=3e-5"], {"lr": 3e-5}),
        ("{name: torch.optim.Muon, kwargs: {adamw: {eps: 1.0e-6}}}", [], {"lr": 2e-5, "adamw": {"eps": 1e-6}}),
        ("{name: torch.optim.AdamW, kwargs: {eps: 1.0e-6}}", ["~policy.optimizer.kwargs"], {"lr": 2e-5}),
        # The controls: a rate of its own, and none.
        ("{name: torch.optim.AdamW, kwargs: {lr: 0.1}}", [], {"lr": 0.1}),
        ("{name: torch.optim.AdamW, kwargs: {lr: null}}", [], {"lr": None}),
    ],
)
def test_an_optimizer_of_a_file_without_a_rate_trains_at_that_of_the_run(section, overrides, kwargs, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(f"policy: {{lr: 2.0e-5, optimizer: {section}}}")
    made = optimizer(*overrides, source=path)
    assert {key: value for key, value in made.items() if key != "name"} == kwargs


def test_without_a_rate_of_the_run_a_class_has_its_own():
    config = ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": None})
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    assert build_optimizer([weight], config).param_groups[0]["lr"] == 1e-3
    muon = build_optimizer([weight], replace(config, name="torch.optim.Muon"))
    assert [group["lr"] for group in muon.param_groups] == [1e-3]


class Unrated(torch.optim.SGD):
    """An optimizer that calls its rate otherwise."""

    def __init__(self, params, alpha: float = 0.5):
        super().__init__(params, lr=alpha)


def test_a_class_that_knows_no_such_argument_is_told_how_to_do_without():
    weight, name = torch.nn.Parameter(torch.zeros(2, 2)), f"{__name__}.Unrated"
    made = load_config(None, [*NEEDED, f"++policy.optimizer.name={name}"]).policy.optimizer
    with pytest.raises(ConfigError, match=r"has no argument 'lr' .*: set (\S+), and name") as caught:
        build_optimizer([weight], made)
    told = str(caught.value).partition(": set ")[2].partition(",")[0]
    made = load_config(None, [*NEEDED, f"++policy.optimizer.name={name}", told]).policy.optimizer
    assert build_optimizer([weight], made).param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("section", ["null", "'${.other}'", "{kwargs: null, name: torch.optim.SGD}"])
def test_a_section_that_stands_elsewhere_is_left_as_it_is(section, tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(f"policy: {{other: {{name: torch.optim.SGD}}, optimizer: {section}}}")
    tree = load_layers(path).tree
    before = OmegaConf.to_yaml(tree)
    give_rate(tree)
    assert OmegaConf.to_yaml(tree) == before


def test_so_do_those_of_a_schedule(tmp_path):
    path, schedules = tmp_path / "own.yaml", "torch.optim.lr_scheduler"
    path.write_text(f"policy: {{scheduler: {{name: {schedules}.LinearLR, kwargs: {{total_iters: 8}}}}}}")

    def kwargs(name: str, given: str) -> Any:
        override = f"++policy.scheduler={{name: {schedules}.{name}, kwargs: {given}}}"
        scheduler = load_config(path, [*NEEDED, override]).policy.scheduler
        assert scheduler is not None
        return scheduler.parts[0].kwargs

    assert kwargs("CosineAnnealingLR", "{T_max: 9}") == {"T_max": 9}
    assert kwargs("LinearLR", "{start_factor: 0.5}") == {"total_iters": 8, "start_factor": 0.5}
