"""SFTTrainer: the engine behind three classes."""

from __future__ import annotations

import json
import math

import pytest
import torch

from skills_pipe.errors import CheckpointError, ConfigError
from skills_pipe.training.api import HuggingFaceModel, SFTDataset, SFTTrainer
from tests.training.api.seed import alpaca_rows, tiny_folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A GPT-2 with dropout, so that random numbers matter."""
    return tiny_folder(tmp_path_factory.mktemp("model") / "gpt2", resid_pdrop=0.1, embd_pdrop=0.1)


def trainer(base, tmp_path, *, steps=4, rows=16, seed=7, val=None, **sections):
    config = {
        "training": {"batch_size": 4, "learning_rate": 1e-3, "num_epochs": 10, "warmup_steps": 2},
        "data": {"max_seq_length": 512},
        "sft": {"max_num_steps": steps, "seed": seed},
        "policy": {"precision": "float32"},
        "logger": {"log_dir": str(tmp_path / "logs"), "tensorboard_enabled": False},
        **sections,
    }
    model = HuggingFaceModel.from_pretrained(base)
    return SFTTrainer(model=model, train_dataset=SFTDataset(alpaca_rows(rows)), val_dataset=val, config=config)


def weights(made):
    return {name: value.clone() for name, value in made.model.module.state_dict().items()}


def equal(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_training_saved_in_a_file_goes_on_as_the_uninterrupted_one_bit_for_bit(base, tmp_path):
    whole = trainer(base, tmp_path)
    whole.train()

    first = trainer(base, tmp_path, steps=2)
    first.train()
    first.save_checkpoint(tmp_path / "half.pt")
    second = trainer(base, tmp_path)
    second.load_checkpoint(tmp_path / "half.pt")
    halfway = weights(second)
    verdict = second.train()

    assert verdict.step == 4
    assert equal(weights(second), weights(whole))
    assert not equal(halfway, weights(whole))  # the comparison sees two steps


def test_a_file_holds_the_optimizer(base, tmp_path):
    """The control of the test above: without the moments, the same steps lead elsewhere."""
    first = trainer(base, tmp_path, steps=2)
    first.train()
    first.save_checkpoint(tmp_path / "half.pt")
    state = torch.load(tmp_path / "half.pt")
    second, forgetful = trainer(base, tmp_path), trainer(base, tmp_path)
    state["optimizer"] = {
        name: torch.zeros_like(value) if isinstance(value, torch.Tensor) else value
        for name, value in state["optimizer"].items()
    }
    torch.save(state, tmp_path / "forgetful.pt")
    second.load_checkpoint(tmp_path / "half.pt")
    forgetful.load_checkpoint(tmp_path / "forgetful.pt")
    second.train()
    forgetful.train()
    assert not equal(weights(second), weights(forgetful))


def test_a_file_of_other_rows_is_refused_and_changes_nothing(base, tmp_path):
    first = trainer(base, tmp_path, steps=1)
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    other = trainer(base, tmp_path, rows=12)
    before = weights(other)
    with pytest.raises(CheckpointError, match="of another training data"):
        other.load_checkpoint(tmp_path / "a.pt")
    assert equal(weights(other), before)


@pytest.mark.parametrize("content", [None, b"", b"no checkpoint", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_checkpoint_is_an_error(base, tmp_path, content):
    path = tmp_path / "x.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        trainer(base, tmp_path).load_checkpoint(path)


def test_validation_happens_after_each_epoch_and_metrics_are_logged(base, tmp_path):
    made = trainer(base, tmp_path, steps=8, val=SFTDataset(alpaca_rows(4, start=50)))
    made.train()
    lines = [json.loads(line) for line in (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()]
    validated = {line["step"]: line["validation/val_loss"] for line in lines if "validation/val_loss" in line}
    assert sorted(validated) == [4, 8]
    assert made.evaluate().loss == pytest.approx(validated[8], rel=1e-6)


def test_perplexity_is_of_tokens_and_not_of_batches(base, tmp_path):
    rows = SFTDataset([*alpaca_rows(3), {"instruction": "Count.", "output": "one two three four five six seven"}])
    made = trainer(base, tmp_path)
    found = made.evaluate(rows)
    outputs = [made.model.eval()(row) for row in rows]
    total = sum(float(output.loss) * output.tokens for output in outputs)
    expected = total / sum(output.tokens for output in outputs)
    assert found.loss == pytest.approx(expected, rel=1e-5)
    assert found.perplexity == pytest.approx(math.exp(expected), rel=1e-5)
    mean_of_rows = sum(float(output.loss) for output in outputs) / len(outputs)
    assert abs(mean_of_rows - expected) > 1e-4  # the control: the mean of rows is another number


def test_without_rows_there_is_nothing_to_evaluate(base, tmp_path):
    with pytest.raises(ConfigError, match="no rows to evaluate on"):
        trainer(base, tmp_path).evaluate()


def test_a_section_checkpointing_makes_steps_that_a_second_trainer_resumes_from(base, tmp_path):
    section = {"checkpoint_dir": str(tmp_path / "checkpoints"), "save_period": 2}
    trainer(base, tmp_path, steps=2, checkpointing=section).train()
    assert (tmp_path / "checkpoints" / "step_2" / "manifest.json").is_file()
    second = trainer(base, tmp_path, steps=4, checkpointing=section)
    second.train()
    whole = trainer(base, tmp_path)
    whole.train()
    assert equal(weights(second), weights(whole))
    with pytest.raises(ConfigError, match=r"resumes from .* by itself"):
        second.load_checkpoint(tmp_path / "x.pt")


def test_without_the_section_no_steps_are_written(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer(base, tmp_path, steps=1).train()
    assert not (tmp_path / "results").exists()


def test_several_processes_are_refused(base, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="several processes were started"):
        trainer(base, tmp_path)


ROWS_PACKED = {
    "policy": {"precision": "float32", "sequence_packing": {"scope": "dataset"}},
    "data": {"max_seq_length": 400},
}


def steps_logged(tmp_path, key):
    lines = [json.loads(line) for line in (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def test_steps_of_rows_packed_over_all_documents_are_counted_as_the_training_counts_them(base, tmp_path):
    made = trainer(base, tmp_path, rows=40, steps=5, val=SFTDataset(alpaca_rows(3, start=70)), **ROWS_PACKED)
    made.train()
    made.save_checkpoint(tmp_path / "x.pt")
    trained = steps_logged(tmp_path, "train/global_valid_toks")
    assert torch.load(tmp_path / "x.pt")["info"]["total_valid_tokens"] == sum(trained.values())
    per_epoch = made._standing().sampler.steps_per_epoch
    assert 1 < per_epoch < 40 // 4  # the control: the documents alone would make more steps
    assert min(steps_logged(tmp_path, "validation/val_loss")) == per_epoch


def test_rows_packed_over_all_documents_do_not_matter_to_an_evaluation(base, tmp_path):
    found = SFTDataset(alpaca_rows(9, start=30))
    packed, plain = trainer(base, tmp_path, **ROWS_PACKED), trainer(base, tmp_path)
    assert packed.evaluate(found).loss == pytest.approx(plain.evaluate(found).loss, rel=1e-6)


def test_a_file_of_another_order_is_refused(base, tmp_path):
    first = trainer(base, tmp_path, steps=1)
    first.train()
    first.save_checkpoint(tmp_path / "a.pt")
    other = trainer(base, tmp_path, data={"max_seq_length": 512, "length_order": "sorted"})
    with pytest.raises(CheckpointError, match="of another training data or order"):
        other.load_checkpoint(tmp_path / "a.pt")


def test_a_file_holds_the_average_of_the_weights(base, tmp_path):
    def averaging(steps):
        return trainer(base, tmp_path, steps=steps, sft={"ema_decay": 0.5, "max_num_steps": steps, "seed": 7})

    def average(made):
        return {name: value.clone() for name, value in made._standing().backend.trainee.average.state().items()}

    whole, first, second = averaging(4), averaging(2), averaging(4)
    whole.train()
    first.train()
    first.save_checkpoint(tmp_path / "half.pt")
    second.load_checkpoint(tmp_path / "half.pt")
    second.train()
    assert equal(average(second), average(whole))
    assert not equal(average(second), weights(second))


def test_rows_are_evaluated_by_the_keys_they_are_trained_by(base, tmp_path):
    rows = [{"q": f"What is {n}?", "a": str(n)} for n in range(16)]
    named = {"data": {"max_seq_length": 512, "input_key": "q", "output_key": "a"}}
    asked = [{"input": row["q"], "output": row["a"]} for row in rows]
    plain = trainer(base, tmp_path)
    made = SFTTrainer(
        model=HuggingFaceModel.from_pretrained(base),
        train_dataset=SFTDataset(rows),
        config={"training": {"batch_size": 4, "num_epochs": 1}, "policy": {"precision": "float32"}, **named},
    )
    assert made.evaluate(SFTDataset(rows)).loss == pytest.approx(plain.evaluate(SFTDataset(asked)).loss, rel=1e-6)


def test_a_file_holds_the_watch_of_spikes(base, tmp_path):
    """Many steps count as spikes here, as those before them decide."""

    def guarded(steps):
        sft = {"max_num_steps": steps, "seed": 7, "loss_spikes": {"deviations": 0.01, "window": 4}}
        return trainer(base, tmp_path, sft=sft, policy={"precision": "float32", "neftune_noise_alpha": 20})

    whole, first, second, forgetful = (guarded(steps) for steps in (8, 4, 8, 8))
    whole.train()
    passed_over = steps_logged(tmp_path, "train/passed_over_steps")
    first.train()
    first.save_checkpoint(tmp_path / "half.pt")
    state = torch.load(tmp_path / "half.pt")
    second.load_checkpoint(tmp_path / "half.pt")
    second.train()

    assert 0 < passed_over[8] < 8
    assert steps_logged(tmp_path, "train/passed_over_steps")[8] == passed_over[8]
    assert equal(weights(second), weights(whole))

    del state["info"]["watches"]
    torch.save(state, tmp_path / "forgetful.pt")
    forgetful.load_checkpoint(tmp_path / "forgetful.pt")
    forgetful.train()
    assert not equal(weights(forgetful), weights(whole))  # the control


def test_a_file_holds_how_long_validation_has_not_got_better(base, tmp_path):
    def stopping(steps):
        patience = {"val_period": 1, "early_stopping": {"patience": 3, "min_delta": 100}}
        rows = SFTDataset(alpaca_rows(4, start=50))
        return trainer(base, tmp_path, val=rows, sft={"max_num_steps": steps, "seed": 7, **patience})

    first, second = stopping(2), stopping(8)
    first.train()
    first.save_checkpoint(tmp_path / "half.pt")
    second.load_checkpoint(tmp_path / "half.pt")
    assert second.train().step == 4  # alone it would wait for three steps of its own, to the fifth
    assert second.train().step == 4  # asked again there is nothing left to do


def test_a_trainer_that_trains_again_goes_on_where_it_was(base, tmp_path):
    made = trainer(base, tmp_path, steps=2)
    made.train()
    before = weights(made)
    assert made.train().step == 2
    assert equal(weights(made), before)
