"""The surface of trlX: configurations, registry, texts into documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from skills_pipe.errors import ConfigError, DataError
from skills_pipe.training.api import trlx
from skills_pipe.training.api.trlx import (
    NeMoSFTTrainer,
    TRLConfig,
    default_sft_config,
    get_trainer,
    register_trainer,
)
from skills_pipe.training.api.trlx.megatron_cfg import engine_sections
from skills_pipe.training.api.trlx.samples import Collation, ShuffledCyclicSequence, tokenise
from tests.training.api.seed import tiny_folder

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "trlx" / "trlx.json").read_text())
TOKENIZER = Path(__file__).parents[1] / "golden" / "nemo_rl" / "tokenizer.json"
CONFIG = Path(__file__).parents[3] / "examples" / "trlx" / "configs" / "nemo_sft_config.yml"
BOS, EOS, PAD = 11, 12, 1
"""Of the tokenizer whose batches were recorded."""


@pytest.mark.parametrize("case", GOLDEN["shuffled_cyclic"], ids=str)
def test_the_order_is_the_recorded_one(case):
    found = ShuffledCyclicSequence(case["new_length"], range(case["length"]), case["seed"])
    assert [found[index] for index in range(len(found))] == case["order"]
    other = ShuffledCyclicSequence(case["new_length"], range(case["length"]), case["seed"] + 1)
    assert [other[index] for index in range(len(other))] != case["order"]


@pytest.mark.parametrize("case", GOLDEN["prompt_pipeline"], ids=lambda case: f"{case['max_prompt_length']}")
def test_texts_are_tokenised_as_recorded(case):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER), pad_token=case["pad_token"])
    tokenizer.truncation_side = case["truncation_side"]
    found = tokenise(case["texts"], tokenizer, case["max_prompt_length"])
    assert found == [item["input_ids"] for item in case["items"]]


@pytest.mark.parametrize("case", GOLDEN["nemo_sft_collate"], ids=lambda case: f"bos={case['add_bos']}")
def test_batches_are_the_recorded_ones(case):
    collation = Collation(
        max_length=case["max_length"],
        bos_id=BOS if case["add_bos"] else None,
        eos_id=EOS if case["add_eos"] else None,
    )
    ids, mask = collation.batch(case["items"], pad_id=PAD)
    assert ids.tolist() == case["input_ids"]
    assert mask.tolist() == case["loss_mask"]


def test_a_text_that_is_too_long_keeps_its_end_token():
    collation = Collation(max_length=4, bos_id=BOS, eos_id=EOS)
    assert collation.with_ends([5, 6, 7, 8, 9]) == [BOS, 5, 6, EOS]
    assert collation.with_ends([5]) == [BOS, 5, EOS]


def test_the_end_of_document_is_not_trained_when_it_is_masked():
    example = Collation(max_length=8, eos_id=EOS, train_eos=False).example([5, 6, 7])
    assert example.loss_mask.tolist() == [0, 1, 1, 0]
    trained = Collation(max_length=8, eos_id=EOS).example([5, 6, 7])
    assert trained.loss_mask.tolist() == [0, 1, 1, 1]


def test_dialogues_are_refused():
    with pytest.raises(DataError, match="dialogues are not supported"):
        tokenise([["prompt", "output"]], PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER)), 8)


def test_a_configuration_survives_its_dictionary():
    config = TRLConfig.load_yaml(CONFIG)
    assert TRLConfig.from_dict(config.to_dict()) == config
    assert json.loads(str(config))["train"]["trainer"] == "NeMoSFTTrainer"


def test_a_small_number_of_yaml_is_a_number(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(CONFIG.read_text().replace("lr: 1.0e-5", "lr: 1e-5"))
    assert TRLConfig.load_yaml(path).optimizer.kwargs["lr"] == 1e-5


def test_evolving_makes_another_configuration():
    config = TRLConfig.load_yaml(CONFIG)
    other = config.evolve(train={"seed": 5}, method={"gen_kwargs": {"max_new_tokens": 7}})
    assert (other.train.seed, config.train.seed) == (5, 1000)
    assert other.method.gen_kwargs == {"max_new_tokens": 7, "do_sample": False}
    assert other.train.total_steps == config.train.total_steps


def test_updating_by_dotted_names_refuses_unknown_ones():
    config = TRLConfig.load_yaml(CONFIG)
    assert TRLConfig.update(config, {"train.seed": 3, "method.gen_kwargs.max_new_tokens": 9}).train.seed == 3
    with pytest.raises(ValueError, match=r"parameter train\.sede is not present"):
        TRLConfig.update(config, {"train.sede": 3})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"method": {"name": "ppoconfig"}}, "'ppoconfig' is not supported"),
        ({"model": {"modelpath": "x"}}, "unknown key model.modelpath"),
    ],
)
def test_what_is_not_there_is_refused(change, what):
    with pytest.raises(ConfigError, match=what):
        TRLConfig.load_yaml(CONFIG).evolve(**change)


def test_the_default_configuration_is_trlxs():
    config = default_sft_config()
    assert (config.train.seq_length, config.train.epochs, config.train.total_steps) == (1024, 100, 1000)
    assert config.optimizer.kwargs == {"lr": 1e-4, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 1e-6}
    assert config.method.gen_kwargs["max_new_tokens"] == 40


def test_trainers_are_found_whatever_their_capitals():
    @register_trainer("My Trainer")
    class Mine:
        pass

    assert get_trainer("NEMOsfttrainer") is NeMoSFTTrainer
    assert get_trainer("my trainer") is Mine
    with pytest.raises(ConfigError, match=r"no trainer 'NeMoSFTTrianer' is registered.*did you mean 'nemosfttrainer'"):
        get_trainer("NeMoSFTTrianer")


def test_a_cosine_falls_after_its_rise_and_half_a_plateau_is_refused():
    config = TRLConfig.load_yaml(CONFIG)
    megatron = config.to_dict()["train"]["trainer_kwargs"]["megatron_cfg"]
    megatron["model"]["optim"]["sched"] |= {"warmup_steps": 4, "constant_steps": 0}
    parts = engine_sections(config, megatron, "base")["policy"]["scheduler"]
    assert parts[1]["kwargs"] == {"T_max": 6, "eta_min": 5e-5}
    assert parts[2] == {"milestones": [4]}
    megatron["model"]["optim"]["sched"]["constant_steps"] = 3
    with pytest.raises(ConfigError, match="3 constant steps out of 10 are not supported"):
        engine_sections(config, megatron, "base")


def test_megatron_cfg_is_needed():
    with pytest.raises(ConfigError, match="megatron_cfg is missing"):
        NeMoSFTTrainer(TRLConfig.load_yaml(CONFIG))


def test_metrics_are_means_over_the_texts_that_are_generated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_folder(tmp_path / "base")
    path = tmp_path / "c.yml"
    path.write_text(
        CONFIG.read_text().replace("meta-llama/Llama-3.1-8B", "base").replace("max_steps: 10", "max_steps: 1")
    )
    seen = {}

    def judge(texts, prompts, outputs):
        seen.update(texts=texts, prompts=prompts, outputs=outputs)
        return {"length": [1.0, 3.0]}

    trainer = trlx.train(
        samples=["a text"], config=TRLConfig.load_yaml(path), eval_prompts=["one", "two"], metric_fn=judge
    )
    assert trainer.metrics == {"length": 2.0}
    assert seen["prompts"] == ["one", "two"]
    assert seen["texts"] == [prompt + output for prompt, output in zip(seen["prompts"], seen["outputs"], strict=True)]
    assert all(0 < len(output.encode()) <= 120 for output in seen["outputs"])
