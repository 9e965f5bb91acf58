import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.checkpoint.state import RunDescription, Trainee
from tests.training.checkpoint.runs import (
    RUN,
    equal_models,
    info_at,
    new_manager,
    new_trainee,
    other_trainee,
    position_at,
    save_steps,
    train,
)


@pytest.mark.parametrize("tied", [False, True])
def test_four_steps_and_six_resumed_are_ten_steps_bit_for_bit(tmp_path, tied):
    torch.manual_seed(0)
    trainee = new_trainee(tied=tied)
    train(trainee, 4)
    manager = new_manager(tmp_path)
    manager.save(trainee, info_at(4), position_at(4))
    manager.close()
    losses = train(trainee, 6)

    torch.manual_seed(999)
    resumed = new_trainee(seed=7, tied=tied)
    point = new_manager(tmp_path).resume(resumed)
    assert point.info == info_at(4)
    assert point.position == position_at(4)
    assert point.warnings == ()
    assert train(resumed, 6) == losses
    assert equal_models(resumed.model, trainee.model)
    assert resumed.scheduler.get_last_lr() == trainee.scheduler.get_last_lr()


def test_optimizer_moments_are_restored_bit_for_bit(tmp_path):
    trainee = save_steps(tmp_path, 1, 2)
    resumed = new_trainee(seed=7)
    new_manager(tmp_path).resume(resumed)
    saved, restored = trainee.optimizer.state_dict(), resumed.optimizer.state_dict()
    assert saved["param_groups"] == restored["param_groups"]
    for index, moments in saved["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, restored["state"][index][name]), (index, name)


@pytest.mark.parametrize("left_out", ["rng", "optimizer", "scheduler"])
def test_leaving_a_part_out_is_seen_in_the_losses(tmp_path, left_out):
    trainee = new_trainee()
    train(trainee, 4)
    run = RUN if left_out != "optimizer" else RunDescription(**(RUN.__dict__ | {"save_optimizer": False}))
    manager = new_manager(tmp_path, run=run)
    manager.save(trainee, info_at(4), position_at(4))
    manager.close()
    losses = train(trainee, 6)
    resumed = new_trainee(seed=7)
    new_manager(tmp_path, run=run).resume(resumed)
    if left_out == "rng":
        torch.manual_seed(999)
    if left_out == "scheduler":
        resumed.scheduler.load_state_dict(new_trainee().scheduler.state_dict())
    assert train(resumed, 6) != losses


def test_changed_settings_of_the_optimizer_hold_from_the_resumed_step_on_and_are_said(tmp_path):
    save_steps(tmp_path, 1, 2, 3)
    uninterrupted = other_trainee()
    train(uninterrupted, 3)
    resumed = other_trainee()
    settings = "policy:\n  optimizer: {name: torch.optim.AdamW, kwargs: {lr: 0.5}}\n"
    point = new_manager(tmp_path, run=replace(RUN, config_yaml=settings)).resume(resumed)
    changes = "policy.optimizer.name null -> torch.optim.AdamW; policy.optimizer.kwargs.lr null -> 0.5"
    assert [line for line in point.warnings if changes in line]
    assert resumed.optimizer.param_groups[0]["lr"] == uninterrupted.optimizer.param_groups[0]["lr"]
    assert resumed.optimizer.param_groups[0]["weight_decay"] == 0.25
    assert all(state["step"] == 3 for state in resumed.optimizer.state.values())


def test_an_optimizer_that_keeps_something_else_is_refused_by_its_name(tmp_path):
    settings = "policy: {{optimizer: {{name: torch.optim.{}}}}}\n"
    save_steps(tmp_path, 1, run=replace(RUN, config_yaml=settings.format("AdamW")))
    resumed = new_trainee()
    sgd = torch.optim.SGD(resumed.model.parameters(), lr=0.1, momentum=0.9)
    resumed = replace(resumed, optimizer=sgd, scheduler=None)
    manager = new_manager(tmp_path, run=replace(RUN, config_yaml=settings.format("SGD")))

    with pytest.raises(CheckpointError, match=r"SGD keeps other states than torch.optim.AdamW, .* to step_1"):
        manager.resume(resumed)


def test_so_is_one_that_keeps_more_by_the_argument_that_asks_for_it(tmp_path):
    settings = "policy: {{optimizer: {{name: torch.optim.AdamW, kwargs: {{lr: 0.1, amsgrad: {}}}}}}}\n"
    save_steps(tmp_path, 1, run=replace(RUN, config_yaml=settings.format("false")))
    resumed = new_trainee()
    resumed = replace(resumed, optimizer=torch.optim.AdamW(resumed.model.parameters(), amsgrad=True), scheduler=None)
    manager = new_manager(tmp_path, run=replace(RUN, config_yaml=settings.format("true")))
    with pytest.raises(CheckpointError, match=r"AdamW keeps other states with amsgrad=True than it did up to step_1"):
        manager.resume(resumed)


def test_an_optimizer_that_keeps_the_same_goes_on_from_it_by_its_own_settings(tmp_path):
    trainee = save_steps(tmp_path, 1, 2)
    model = new_trainee().model
    radam = torch.optim.RAdam(model.parameters(), lr=0.5, eps=1e-3)
    settings = replace(RUN, config_yaml="policy: {optimizer: {name: torch.optim.RAdam}}\n")
    new_manager(tmp_path, run=settings).resume(Trainee(model=model, optimizer=radam, scheduler=None))

    (group,) = radam.param_groups
    assert (group["lr"], group["eps"]) == (0.5, 1e-3)
    for then, now in zip(trainee.optimizer.state.values(), radam.state.values(), strict=True):
        assert now["step"] == 2
        assert torch.equal(now["exp_avg"], then["exp_avg"]) and torch.equal(now["exp_avg_sq"], then["exp_avg_sq"])


def test_an_optimizer_that_keeps_nothing_needs_nothing(tmp_path):
    trainee = save_steps(tmp_path, 1)
    resumed = new_trainee(seed=7)
    sgd = torch.optim.SGD(resumed.model.parameters(), lr=0.1)
    settings = replace(RUN, config_yaml="policy: {optimizer: {name: torch.optim.SGD}}\n")
    new_manager(tmp_path, run=settings).resume(replace(resumed, optimizer=sgd, scheduler=None))

    assert not any(sgd.state.values())
    assert all(map(torch.equal, resumed.model.parameters(), trainee.model.parameters()))


def test_all_generators_go_on_where_they_were(tmp_path):
    trainee = new_trainee()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    random.gauss(0, 1), np.random.normal(), torch.randn(1)
    save_steps(tmp_path, 1, trainee=trainee)
    expected = random.gauss(0, 1), np.random.normal(), torch.randn(1)
    random.seed(4), np.random.seed(4), torch.manual_seed(4)
    new_manager(tmp_path).resume(new_trainee())
    assert (random.gauss(0, 1), np.random.normal(), torch.randn(1)) == expected


def test_a_step_holds_what_the_layout_says(tmp_path):
    save_steps(tmp_path, 3)
    files = {str(path.relative_to(tmp_path)) for path in (tmp_path / "step_3").rglob("*") if path.is_file()}
    assert files == {
        f"step_3/{name}"
        for name in (
            "config.yaml",
            "training_info.json",
            "train_dataloader.json",
            "policy/weights/.metadata",
            "policy/weights/__0_0.distcp",
            "policy/optimizer/.metadata",
            "policy/optimizer/__0_0.distcp",
            "policy/scheduler.pt",
            "policy/tokenizer/tokenizer.json",
            "policy/tokenizer/tokenizer_config.json",
            "policy/tokenizer/chat_template.jinja",
            "policy/model/config.json",
            "policy/model/generation_config.json",
            "rng/rank_0.pt",
            "manifest.json",
        )
    }
    manifest = manifests.read(tmp_path / "step_3")
    assert {f"step_3/{name}" for name in manifest.files} == files - {"step_3/manifest.json"}
    assert manifests.damage(tmp_path / "step_3", manifest) == []
    assert manifest.facts["step"] == 3


def test_training_info_has_counters_and_metrics_side_by_side(tmp_path):
    manager = new_manager(tmp_path)
    assert manager.save(new_trainee(), info_at(3, val__val_loss=1.5), position_at(3)) == (3,)
    assert json.loads((tmp_path / "step_3" / "training_info.json").read_text()) == {
        "epoch": 0,
        "step": 3,
        "total_steps": 3,
        "consumed_samples": 6,
        "total_valid_tokens": 90,
        "val:val_loss": 1.5,
    }


def test_the_latest_step_is_resumed_by_number_not_by_name(tmp_path):
    save_steps(tmp_path, 9, 10)
    assert new_manager(tmp_path).resume(new_trainee()).info.total_steps == 10


def test_a_fresh_folder_has_nothing_to_resume(tmp_path):
    assert new_manager(tmp_path / "new").resume(new_trainee()) is None


def test_another_base_model_is_refused_and_accepted_when_told_so(tmp_path):
    save_steps(tmp_path, 1)
    other = RunDescription(**(RUN.__dict__ | {"model_fingerprint": "model-b"}))
    with pytest.raises(CheckpointError, match="the base model changed since step_1 was saved"):
        new_manager(tmp_path, run=other).resume(new_trainee())
    manager = CheckpointManager(tmp_path, run=other, accept_changes=True)
    manager.start()
    point = manager.resume(new_trainee())
    assert point.position == position_at(1)
    assert "the base model changed since step_1: going on as told" in point.warnings


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"data_fingerprint": "data-b"}, "the training data changed"), ({"seed": 5}, r"order \(1 then, 5 now\) changed")],
)
def test_other_data_are_refused_and_start_anew_when_told_so(tmp_path, change, sentence):
    save_steps(tmp_path, 1)
    other = RunDescription(**(RUN.__dict__ | change))
    with pytest.raises(CheckpointError, match=sentence):
        new_manager(tmp_path, run=other).resume(new_trainee())
    manager = CheckpointManager(tmp_path, run=other, accept_changes=True)
    manager.start()
    point = manager.resume(new_trainee())
    assert point.position is None
    assert "the data start from their beginning" in point.warnings


def test_a_model_of_another_shape_is_refused_with_the_tensors_named(tmp_path):
    save_steps(tmp_path, 1, trainee=new_trainee(architecture="qwen3"))
    with pytest.raises(CheckpointError, match=r"does not fit the model: .*q_norm.weight is not in the model"):
        new_manager(tmp_path).resume(new_trainee(architecture="llama"))


def test_saving_a_step_again_replaces_it(tmp_path):
    trainee = save_steps(tmp_path, 1)
    train(trainee, 1)
    save_steps(tmp_path, 1, trainee=trainee)
    resumed = new_trainee(seed=7)
    new_manager(tmp_path).resume(resumed)
    assert equal_models(resumed.model, trainee.model)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".owner-training.json", "step_1"]


def test_a_completed_training_is_sealed_and_a_further_step_breaks_the_seal(tmp_path):
    trainee = new_trainee()
    manager = new_manager(tmp_path)
    manager.save(trainee, info_at(1), position_at(1))
    manager.complete({"steps": 1})
    manifest = manifests.read(tmp_path)
    assert manifest.kind == "training"
    assert list(manifest.files) == ["step_1/manifest.json"]
    assert manifests.damage(tmp_path, manifest) == []
    save_steps(tmp_path, 2, trainee=trainee)
    assert manifests.read(tmp_path) is None


def test_stop_tokens_of_the_training_data_go_into_the_generation_config(tmp_path):
    run = RunDescription(**(RUN.__dict__ | {"stop_token_ids": (4, 2)}))
    save_steps(tmp_path, 1, run=run)
    path = tmp_path / "step_1" / "policy" / "model" / "generation_config.json"
    saved = json.loads(path.read_text())
    assert saved["eos_token_id"] == [4, 2]
    assert not saved.get("_from_model_config")


@pytest.mark.parametrize(("momentum", "warned"), [(0.0, False), (0.9, True)])
def test_an_optimizer_that_remembers_nothing_misses_nothing(tmp_path, momentum, warned):
    """Only where moments were not saved, but are needed, the user hears of it."""

    def with_sgd(seed):
        trainee = new_trainee(seed=seed)
        optimizer = torch.optim.SGD(trainee.model.parameters(), lr=1e-2, momentum=momentum)
        return Trainee(model=trainee.model, optimizer=optimizer, scheduler=constant(optimizer))

    run = replace(RUN, save_optimizer=not warned)
    trainee = with_sgd(0)
    save_steps(tmp_path, 2, trainee=trainee, run=run)
    resumed = with_sgd(5)
    point = new_manager(tmp_path, run=run).resume(resumed)

    assert point.warnings == (("step_2 has no optimizer state: the optimizer starts fresh",) if warned else ())
    torch.manual_seed(3)
    expected = train(trainee, 3)
    torch.manual_seed(3)
    assert (train(resumed, 3) == expected) is not warned


def constant(optimizer):
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
