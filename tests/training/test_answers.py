"""Answers during validation: what is asked, what is written, and that it is the same over several ranks."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch

from skills_pipe.artifacts.metrics import read_metrics
from skills_pipe.errors import ConfigError, UserError
from skills_pipe.training.answers import Answers, last_answer
from skills_pipe.training.api import HuggingFaceModel
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import load_config
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.config.schema.policy import ObjectConfig
from skills_pipe.training.data.dataset import Example
from skills_pipe.training.distributed import World
from skills_pipe.training.models.generate import Generation, Prompt
from skills_pipe.training.sft import main
from tests.training.outputs import assert_equal_bits, state
from tests.training.sft_arguments import STEPS, arguments
from tests.training.tiny import chat_rows, tiny_model, tiny_tokenizer, write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

METRIC = """
def judge(prompts, answers, references):
    assert all(prompt.endswith("<|im_start|>assistant\\n") for prompt in prompts)
    return {"characters": [len(answer) for answer in answers]}

def short(prompts, answers, references):
    return {"characters": [1.0]}

def taken(prompts, answers, references):
    return {"val_loss": [0.0] * len(answers)}
"""


@pytest.fixture
def sets(tmp_path):
    """Two validation sets, one of them of a question that the training data repeat."""
    known = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}]
    return {
        "train": write_jsonl(tmp_path / "train.jsonl", known * 64),
        "known": write_jsonl(tmp_path / "known.jsonl", known * 3),
        "other": write_jsonl(tmp_path / "other.jsonl", chat_rows(5)),
    }


def given(model, sets, output, *extra):
    nested = f"[{{data_path: {sets['known']}}}, {{data_path: {sets['other']}}}]"
    return arguments(
        model,
        sets["train"],
        output,
        f"++data.validation={nested}",
        "sft.val_period=5",
        "policy.precision=float32",
        "policy.lr=2e-2",
        *extra,
    )


def validated(output, step=STEPS):
    lines = read_metrics(output / "training-logs" / "metrics.jsonl")
    (line,) = [line for line in lines if line["step"] == step and "validation/val_loss" in line]
    return {name.removeprefix("validation/"): value for name, value in line.items()}


def test_what_was_learnt_is_answered(tiny_model_folder, sets, tmp_path, monkeypatch):
    (tmp_path / "my_metric.py").write_text(METRIC)
    monkeypatch.syspath_prepend(tmp_path)
    asked = "sft.val_answers={num_samples: 4, max_new_tokens: 8, batch_size: 3, metric: my_metric.judge}"
    best = ["checkpointing.metric_name=val:known/exact_match", "checkpointing.higher_is_better=true"]
    assert main(given(tiny_model_folder, sets, tmp_path / "out", asked, "sft.val_at_start=true", *best)) == 0

    before, after = validated(tmp_path / "out", 0), validated(tmp_path / "out")
    assert before["known/exact_match"] == 0.0, "the control: it is no property of the comparison"
    assert after["known/exact_match"] == 1.0
    assert after["other/exact_match"] == 0.0
    assert after["exact_match"] == 3 / 7, "a mean over answers, not over datasets"
    assert after["known/characters"] == 2.0
    info = json.loads((tmp_path / "out" / "checkpoints" / f"step_{STEPS}" / "training_info.json").read_text())
    assert info["val:known/exact_match"] == 1.0, "what checkpoints are ranked by"

    lines = (tmp_path / "out" / "training-logs" / "validation-answers" / f"step_{STEPS}.jsonl").read_text()
    rows = [json.loads(line) for line in lines.splitlines()]
    assert [row["document"] for row in rows] == [0, 1, 2, 0, 1, 3, 4]
    assert rows[0]["answer"] == rows[0]["reference"] == "Yo"
    assert rows[0]["prompt"] == "<bos><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert rows[3]["reference"] == chat_rows(1)[0]["messages"][1]["content"]


def test_the_answers_are_those_of_the_exported_model(tiny_model_folder, sets, tmp_path):
    from skills_pipe.training.checkpoint.export import main as export

    asked = "sft.val_answers={num_samples: 5, max_new_tokens: 12}"
    assert main(given(tiny_model_folder, sets, tmp_path, asked, "policy.lr=1e-3")) == 0
    assert export([f"--training_folder={tmp_path}", f"--hf_ckpt_path={tmp_path}/hf"]) == 0

    model = HuggingFaceModel.from_pretrained(tmp_path / "hf")
    text = (tmp_path / "training-logs" / "validation-answers" / f"step_{STEPS}.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["answer"] for row in rows] == model.generate_all([row["prompt"] for row in rows], 12)


def test_training_does_not_notice_that_it_was_asked(tiny_model_folder, sets, tmp_path):
    for name, extra in (("asked", ["sft.val_answers={num_samples: 2, max_new_tokens: 4}"]), ("silent", [])):
        assert main(given(tiny_model_folder, sets, tmp_path / name, *extra)) == 0
    assert_equal_bits(state(tmp_path / "asked", STEPS), state(tmp_path / "silent", STEPS))


def test_a_metric_must_give_a_number_for_each_answer(tiny_model_folder, sets, tmp_path, monkeypatch, capsys):
    (tmp_path / "their_metric.py").write_text(METRIC)
    monkeypatch.syspath_prepend(tmp_path)
    asked = "sft.val_answers={num_samples: 2, max_new_tokens: 4, metric: their_metric."
    assert main(given(tiny_model_folder, sets, tmp_path / "out", asked + "short}")) == 2
    assert "the metric 'characters' gives 1 numbers for 4 answers (sft.val_answers.metric)" in capsys.readouterr().err
    # It would stand in the log, and rank checkpoints, as the loss does.
    assert main(given(tiny_model_folder, sets, tmp_path / "out", asked + "taken}")) == 2
    assert "the metric 'val_loss' has a name that is taken (sft.val_answers.metric)" in capsys.readouterr().err
    assert main(given(tiny_model_folder, sets, tmp_path / "out", asked + "juge}")) == 2
    assert (
        "their_metric has no function 'juge' (sft.val_answers.metric): did you mean 'judge'?" in capsys.readouterr().err
    )
    sys.modules.pop("their_metric")


@pytest.mark.parametrize(
    ("mask", "expected"),
    [([0, 0, 1, 1], (2, 4)), ([0, 1, 1, 0, 0, 1, 0], (5, 6)), ([0, 0.5, 2, 0], (1, 3)), ([0, 0], (0, 0)), ([], (0, 0))],
)
def test_the_last_answer_is_what_is_asked_for(mask, expected):
    assert last_answer(np.array(mask)) == expected


@pytest.mark.parametrize("trained_behind", ["", "\n"])
def test_an_answer_stops_where_it_ends_though_the_line_break_behind_it_is_trained(trained_behind):
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "<eos>"
    asked, answered = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", f"Yo<|im_end|>{trained_behind}")
    )
    mask = np.array([0] * len(asked) + [1] * len(answered), dtype=np.uint8)
    document = Example(input_ids=np.array(asked + answered, dtype=np.int32), loss_mask=mask)

    model = tiny_model()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    answers = Answers.of(load_config(None, [*BASE, HELD]), {"validation": [document]}, tokenizer, model)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in answers.how.stop_ids
    assert tokenizer.encode("\n", add_special_tokens=False)[-1] not in answers.how.stop_ids


BASE = ["policy.model_name=x", "data.train_data_path=x.jsonl", "sft.max_num_steps=9", "sft.val_answers={}"]
HELD = "data.val_data_path=v.jsonl"


def test_what_is_left_out_has_its_usual_value():
    settings = load_config(None, [*BASE, HELD]).sft.val_answers
    assert (settings.num_samples, settings.max_new_tokens, settings.batch_size, settings.metric) == (16, 256, 16, None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "sft.val_answers needs validation data"),
        ([HELD, "data.answer_only_loss=false"], "sft.val_answers needs questions"),
        ([HELD, "policy.tensor_model_parallel_size=2"], "not there for layers that ranks share"),
        ([HELD, "sft.val_answers.metric=judge"], "'judge', no import path"),
        ([HELD, "checkpointing.metric_name=val:exact_match"], "the worst checkpoints would be kept"),
        ([HELD, "sft.val_answers.num_sample=3"], "unknown key sft.val_answers.num_sample"),
    ],
)
def test_a_mistake_is_named(overrides, message):
    with pytest.raises(UserError) as caught:
        load_config(None, [*BASE, *overrides])
    assert message in str(caught.value)


STOP = 7


def answers(world, *, dtype="float32", seed=3, layout=None, architecture="llama", **changes):
    """What several ranks write together, of a model of which each of them holds a part."""
    model = tiny_model(architecture, seed=seed, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
        model.get_output_embeddings().weight[STOP] *= 3.0
    optimizer = ObjectConfig(name="torch.optim.SGD", kwargs={"lr": 0.1})
    backend = FsdpBackend(model, FsdpSettings(optimizer=optimizer, dtype=getattr(torch, dtype), layout=layout), world)
    generator = torch.Generator().manual_seed(1)
    prompts = [
        Prompt(ids=tuple(torch.randint(8, 264, (length,), generator=generator).tolist()), limit=12)
        for length in (3, 17, 1, 40, 9, 9, 28)
    ]
    return backend.generate(prompts, Generation(stop_ids=(STOP,), pad_id=0, batch_size=2))


def test_ranks_that_hold_a_part_of_the_model_each_write_what_one_writes(two_ranks):
    alone = answers(World(rank=0, size=1, device=torch.device("cpu")))
    found = two_ranks(answers)
    assert found == [alone, alone]
    assert len({len(each) for each in alone}) > 1, "some end before others"
    assert two_ranks(answers, seed=4)[0] != alone


def test_in_half_precision_ranks_and_one_process_begin_alike(two_ranks):
    """Which prompts go together changes roundings, so not all of what follows is the same."""
    alone = answers(World(rank=0, size=1, device=torch.device("cpu")), dtype="bfloat16")
    found = two_ranks(answers, dtype="bfloat16")
    assert found[0] == found[1]
    equal = sum(one[:4] == other[:4] for one, other in zip(found[0], alone, strict=True))
    assert equal >= 5, "of 7"


def refusal(world, **case):
    """What the backend says of a layout in which it cannot write; nothing where it writes."""
    try:
        answers(world, **case)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("layout", "architecture"),
    [
        (Layout(tensor=2), "llama"),
        (Layout(tensor=2, sequence_parallel=True), "llama"),
        (Layout(context=2), "llama"),
        (Layout(shard=2, expert=2), "qwen3_moe"),
    ],
    ids=str,
)
def test_ranks_that_share_the_work_on_a_row_refuse_to_write(two_ranks, layout, architecture):
    """The configuration says so before; those who use the backend themselves are told by it, and on every rank."""
    first, second = two_ranks(refusal, layout=layout, architecture=architecture)
    assert first == second
    assert first.startswith(f"the model cannot write: its ranks share layers, sequences or experts ({layout})")


@pytest.mark.parametrize("layout", [Layout(shard=2), Layout(replicate=2)], ids=str)
def test_ranks_with_rows_of_their_own_write(two_ranks, layout):
    assert two_ranks(refusal, layout=layout) == [None, None]
