"""The surface of trlX: configurations, registry, texts into documents."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
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
from skills_pipe.training.api.trlx.samples import Collation, Sample, tokenise
from tests.training.api.seed import tiny_folder

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "trlx" / "trlx.json").read_text())
TOKENIZER = Path(__file__).parents[1] / "golden" / "nemo_rl" / "tokenizer.json"
CONFIG = Path(__file__).parents[3] / "examples" / "trlx" / "configs" / "nemo_sft_config.yml"
BOS, EOS, PAD = 11, 12, 1
"""Of the tokenizer whose batches were recorded."""


@pytest.mark.parametrize("case", GOLDEN["prompt_pipeline"], ids=lambda case: f"{case['max_prompt_length']}")
def test_texts_are_tokenised_as_recorded(case):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(TOKENIZER), pad_token=case["pad_token"])
    tokenizer.truncation_side = case["truncation_side"]
    found = tokenise(case["texts"], tokenizer, case["max_prompt_length"])
    assert [list(sample.ids) for sample in found] == [item["input_ids"] for item in case["items"]]
    assert not any(sample.prompts for sample in found)


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
    example = Collation(max_length=8, eos_id=EOS, train_eos=False).example(Sample(ids=(5, 6, 7)))
    assert example.loss_mask.tolist() == [0, 1, 1, 0]
    trained = Collation(max_length=8, eos_id=EOS).example(Sample(ids=(5, 6, 7)))
    assert trained.loss_mask.tolist() == [0, 1, 1, 1]


def characters(side="right"):
    """A tokenizer whose tokens are letters."""
    vocabulary = {letter: index for index, letter in enumerate("abcdefgh")}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=inner, truncation_side=side)


def test_of_a_dialogue_the_outputs_are_trained_and_its_end():
    (sample,) = tokenise([["ab", "cd", "e", "fg"]], characters(), 99)
    assert sample == Sample(ids=(0, 1, 2, 3, 4, 5, 6), prompts=(True, True, False, False, True, False, False))
    example = Collation(max_length=99, bos_id=BOS, eos_id=EOS).example(sample)
    assert example.input_ids.tolist() == [BOS, 0, 1, 2, 3, 4, 5, 6, EOS]
    assert example.loss_mask.tolist() == [0, 0, 0, 1, 1, 0, 1, 1, 1]
    masked = Collation(max_length=99, eos_id=EOS, train_eos=False).example(sample)
    assert masked.loss_mask.tolist() == [0, 0, 1, 1, 0, 1, 1, 0]
    assert Collation(max_length=5).example(sample).loss_mask.tolist() == [0, 0, 1, 1, 0]


def test_a_text_among_dialogues_is_trained_as_a_whole():
    text, dialogue = tokenise(["abc", ["a", "b"]], characters(), 99)
    assert Collation(max_length=9).example(text).loss_mask.tolist() == [0, 1, 1]
    assert Collation(max_length=9).example(dialogue).loss_mask.tolist() == [0, 1]


@pytest.mark.parametrize(("side", "kept"), [("right", (0, 1, 2)), ("left", (1, 2, 3))])
def test_a_dialogue_that_is_too_long_is_cut_as_a_whole(side, kept):
    (sample,) = tokenise([("ab", "cd")], characters(side), 3)
    assert sample.ids == kept
    assert [token in (0, 1) for token in sample.ids] == list(sample.prompts)


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([], "there are no samples"),
        (["a", ["a", "b", "c"]], r"a dialogue of 3 texts \(samples\[1\]\): each prompt needs an output"),
        ([["a", 1]], r"neither a text nor a list of texts \(samples\[0\]\)"),
        ([7], "neither a text nor a list of texts"),
        ([["abcd", "e"]], r"no token of an output is among the first 4 \(samples\[0\]\)"),
    ],
)
def test_samples_that_cannot_be_trained_are_told_by_their_place(samples, told):
    with pytest.raises(DataError, match=told):
        tokenise(samples, characters(), 4)


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
        ({"method": {"gen_kwargs": {"topk": 5}}}, "method.gen_kwargs.topk is not supported.*did you mean 'top_k'"),
    ],
)
def test_what_is_not_there_is_refused(change, what):
    with pytest.raises(ConfigError, match=what):
        NeMoSFTTrainer(TRLConfig.load_yaml(CONFIG).evolve(**change))


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


_PROGRAM = """
import os, sys, torch
from skills_pipe.training.api import trlx
from skills_pipe.training.api.trlx import TRLConfig

trainer = trlx.train(
    samples=["a text", ["What is 1 + 1?", " 2"], "another, longer text"],
    config=TRLConfig.load_yaml("c.yml").evolve(train={"seed": int(sys.argv[2])}),
    eval_prompts=["one", "two"],
    metric_fn=lambda texts, prompts, outputs: {"length": [float(len(output)) for output in outputs]},
)
if os.environ.get("RANK", "0") == "0":
    torch.save((trainer.metrics, trainer.model.module.state_dict()), sys.argv[1])
"""


def trained_by_two(folder, name):
    """Metrics and weights of a training in two processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "program.py", name, "1000"]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return torch.load(folder / name)


def trained(folder, name, monkeypatch, *, seed=1000):
    """The same in this process."""
    with monkeypatch.context() as here:
        here.chdir(folder)
        here.setattr(sys, "argv", ["program.py", name, str(seed)])
        runpy.run_path("program.py")
    return torch.load(folder / name)


@pytest.mark.slow
def test_two_ranks_train_the_model_that_one_trains_and_both_can_generate(tmp_path, monkeypatch):
    tiny_folder(tmp_path / "base")
    text = CONFIG.read_text().replace("meta-llama/Llama-3.1-8B", "base").replace("max_steps: 10", "max_steps: 2")
    (tmp_path / "c.yml").write_text(text.replace("precision: bf16", "precision: 32"))
    (tmp_path / "program.py").write_text(_PROGRAM)
    metrics, weights = trained_by_two(tmp_path, "two.pt")
    expected_metrics, expected = trained(tmp_path, "one.pt", monkeypatch)
    other = trained(tmp_path, "other.pt", monkeypatch, seed=7)[1]
    assert metrics == expected_metrics
    assert weights.keys() == expected.keys()
    distance = max(float((weights[name] - expected[name]).abs().max()) for name in expected)
    control = max(float((other[name] - expected[name]).abs().max()) for name in expected)
    assert distance < 1e-6 < control
