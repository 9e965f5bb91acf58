"""Optimizers and schedules that do not exist, or do not take their arguments, are told before the queue."""

from dataclasses import replace

import pytest
import torch

from skills_pipe.errors import ConfigError
from skills_pipe.pipeline.checks.finding import Severity
from skills_pipe.training.config import load_config
from skills_pipe.training.optimizers.build import build_optimizer, build_scheduler
from tests.pipeline.commands.sft.checks.findings import HERE, texts, training_findings

pytestmark = pytest.mark.usefixtures("wandb_key")

OPTIMIZER = "++policy.optimizer={{name: {}, kwargs: {}}}"
SCHEDULER = "++policy.scheduler={{name: torch.optim.lr_scheduler.{}, kwargs: {}}}"
WRONG = [
    OPTIMIZER.format("torch.optim.AdamWW", "{}"),
    OPTIMIZER.format("torch.optin.AdamW", "{}"),
    OPTIMIZER.format("torch.optim.AdamW", "{weigth_decay: 0.1}"),
    OPTIMIZER.format("torch.optim.Muon", "{momentun: 0.9}"),
    OPTIMIZER.format("torch.optim.Muon", "{adamw: {beta: 1}}"),
    SCHEDULER.format("CosineAnealingLR", "{T_max: 3}"),
    SCHEDULER.format("CosineAnnealingLR", "{t_max: 3}"),
]


@pytest.mark.parametrize("extra", [*WRONG, OPTIMIZER.format("AdamW", "{}")])
def test_in_the_words_of_the_trainer(extra):
    with pytest.raises(ConfigError) as caught:
        build(extra)
    assert f"error: {caught.value}" in texts(training_findings(extra, cluster=HERE))


@pytest.mark.parametrize("extra", WRONG)
def test_of_a_cluster_no_more_is_known_than_what_this_machine_has(extra):
    found = [
        one for one in training_findings(extra) if "policy.optimizer" in str(one) or "policy.scheduler" in str(one)
    ]
    assert {one.severity for one in found} == {Severity.WARNING}


@pytest.mark.parametrize(
    "extra",
    [
        OPTIMIZER.format("torch.optim.AdamW", "{weight_decay: 0.1, betas: [0.9, 0.95]}"),
        OPTIMIZER.format("torch.optim.Muon", "{momentum: 0.9, weight_decay: 0.1, adamw: {eps: 1.0e-6}}"),
        OPTIMIZER.format("torch.optim.Adafactor", "{lr: null}"),
        OPTIMIZER.format("transformers.Adafactor", "{lr: null, relative_step: true}"),
        SCHEDULER.format("StepLR", "{step_size: 3}"),
        "++policy.scheduler={name: transformers.get_cosine_schedule_with_warmup, kwargs: {num_warmup_steps: 1}}",
    ],
)
def test_the_control_nothing_is_told_of_what_the_trainer_can_make(extra):
    build(extra)
    told = texts(training_findings(extra, cluster=HERE))
    assert "policy.optimizer" not in told and "policy.scheduler" not in told


def test_an_argument_that_has_no_default_is_asked_for():
    told = texts(training_findings(SCHEDULER.format("StepLR", "{gamma: 0.1}"), cluster=HERE))
    assert "error: torch.optim.lr_scheduler.StepLR needs an argument 'step_size' (policy.scheduler.kwargs)" in told


def test_a_class_of_the_users_own_is_found_where_the_trainer_starts(tmp_path):
    (tmp_path / "mine.py").write_text("class Own:\n    def __init__(self, params, lr=1): ...\n")
    here = replace(HERE, working_dir=str(tmp_path))
    right, wrong = (OPTIMIZER.format("mine.Own", kwargs) for kwargs in ("{lr: 2}", "{rate: 2}"))
    assert "policy.optimizer" not in texts(training_findings(right, cluster=here))
    assert "mine.Own has no argument 'rate'" in texts(training_findings(wrong, cluster=here))
    assert "mine is not installed" in texts(training_findings(right, cluster=HERE)), "the control"


def build(extra):
    policy = load_config(None, ["++policy.model_name=m", "++data.train_data_path=rows.jsonl", extra]).policy
    optimizer = build_optimizer([torch.nn.Parameter(torch.zeros(2, 2))], policy.optimizer)
    build_scheduler(optimizer, policy.scheduler, total_steps=10)
