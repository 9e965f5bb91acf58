"""Arguments of optimizers and schedules that would train otherwise than somebody means."""

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config

NEEDED = ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"]
STEPS = ["sft.max_num_steps=500"]


def loaded(*overrides):
    return load_config(None, [*NEEDED, *overrides])


def refused(*overrides):
    with pytest.raises(ConfigError) as caught:
        loaded(*overrides)
    return caught.value


def schedule(name, arguments):
    return f"++policy.scheduler={{name: {name}, kwargs: {{{arguments}}}}}"


COSINE = "transformers.get_cosine_schedule_with_warmup"


@pytest.mark.parametrize(
    ("name", "arguments", "length", "fix"),
    [
        (COSINE, "num_warmup_steps: 0.1", STEPS, "of 500 steps that would be 50"),
        (COSINE, "num_warmup_steps: 0.0001", STEPS, "of 500 steps that would be 1"),
        (COSINE, "num_warmup_steps: 0.1", ["sft.max_num_epochs=2"], "write how many steps it is: 0.1 of those that"),
        (COSINE, "num_warmup_steps: 0.1", [*STEPS, "sft.max_num_epochs=2"], "write how many steps it is"),
        (COSINE, "num_warmup_steps: 5, num_training_steps: 0.5", STEPS, "leave it out: it is that of the run"),
        ("torch.optim.lr_scheduler.LinearLR", "total_iters: 0.1", STEPS, "of 500 steps that would be 50"),
    ],
)
def test_a_share_of_the_run_is_no_number_of_steps(name, arguments, length, fix):
    problem = refused(schedule(name, arguments), *length)
    assert problem.fix.startswith(fix)
    assert f" of {name} is a number of steps, not 0." in problem.what
    assert problem.where == f"override {schedule(name, arguments)!r}"


def test_a_share_in_a_list_of_schedules_is_found_too():
    parts = "{name: torch.optim.lr_scheduler.LinearLR, kwargs: {total_iters: 0.1}}"
    given = f"++policy.scheduler=[{parts}, {{name: torch.optim.lr_scheduler.ConstantLR}}, {{milestones: [50]}}]"
    assert refused(given).what.startswith("total_iters of torch")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (COSINE, "num_warmup_steps: 50"),
        (COSINE, "num_warmup_steps: 0"),
        (COSINE, "num_warmup_steps: 5, num_cycles: 0.5"),
        ("torch.optim.lr_scheduler.OneCycleLR", "max_lr: 0.1, total_steps: 500, pct_start: 0.1"),
        ("torch.optim.lr_scheduler.StepLR", "step_size: 100, gamma: 0.5"),
    ],
)
def test_numbers_of_steps_and_shares_that_are_meant_as_such_are_taken(name, arguments):
    assert loaded(schedule(name, arguments), *STEPS).policy.scheduler is not None


RATE = (
    "policy.optimizer.kwargs.lr must be a number, not 'abc' (override '++policy.optimizer.kwargs.lr=abc'): write one, "
)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("lr=abc", f"{RATE}such as 1.0e-5"),
        ("weight_decay=true", "policy.optimizer.kwargs.weight_decay must be a number, not True"),
        ("betas=0.9", "policy.optimizer.kwargs.betas must be a list of numbers, not 0.9"),
        ("betas=[0.9, b]", "policy.optimizer.kwargs.betas must be a list of numbers, not [0.9, 'b']"),
    ],
)
def test_an_argument_of_another_kind_is_told_in_plain_words(given, message):
    assert str(refused(f"++policy.optimizer.kwargs.{given}")).startswith(message)


@pytest.mark.parametrize("given", ["lr=1e-4", "lr='1e-4'", "lr=null", "betas=[0.9, 0.99]", "weight_decay=0"])
def test_those_of_the_right_kind_are_taken(given):
    assert loaded(f"++policy.optimizer.kwargs.{given}").policy.optimizer is not None


def test_two_numbers_of_eps_are_meant_by_adafactor():
    adafactor = "++policy.optimizer={name: torch.optim.Adafactor, kwargs: {eps: [1e-30, 1e-3]}}"
    assert loaded(adafactor).policy.optimizer.kwargs["eps"] == [1e-30, 1e-3]


@pytest.mark.parametrize("value", ["null", "3", "[1]"])
def test_the_adamw_beside_muon_takes_a_mapping(value):
    muon = "++policy.optimizer.name=torch.optim.Muon"
    assert "must be a mapping of AdamW's arguments" in refused(muon, f"++policy.optimizer.kwargs.adamw={value}").what
    loaded(muon, "++policy.optimizer.kwargs.adamw={eps: 1.0e-6}")


def test_a_name_that_cannot_be_resolved_is_told_once():
    with pytest.raises(ConfigError) as caught:
        loaded("++policy.optimizer.name=${oc.env:NO_SUCH_VARIABLE}")
    assert str(caught.value).count("policy.optimizer.name ") == 1 and "import path" not in str(caught.value)
