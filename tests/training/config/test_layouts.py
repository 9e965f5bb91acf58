"""Both layouts of datasets, older names and older spellings come out as one."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import ObjectConfig, load_config

MODEL = "policy.model_name=/models/base"


def load(*overrides, text=None, tmp_path=None):
    path = None
    if text is not None:
        path = tmp_path / "own.yaml"
        path.write_text(text)
    return load_config(path, [MODEL, *overrides])


def paths(datasets):
    return [dataset.data_path for dataset in datasets]


FLAT = "data: {train_data_path: a.jsonl, val_data_path: b.jsonl, input_key: question, train_split: part}"
NESTED = """
data:
  train: {data_path: a.jsonl, split: part}
  validation: {data_path: b.jsonl}
  default: {input_key: question}
"""


def test_the_flat_and_the_nested_layout_mean_the_same(tmp_path):
    flat = load(text=FLAT, tmp_path=tmp_path).data
    nested = load(text=NESTED, tmp_path=tmp_path).data
    assert flat == nested
    assert paths(flat.train) == ["a.jsonl"]
    assert paths(flat.validation) == ["b.jsonl"]
    assert flat.train[0].input_key == "question"
    assert flat.train[0].split == "part"
    different = load("++data.default.input_key=other", text=NESTED, tmp_path=tmp_path).data
    assert different != flat


def test_several_datasets_share_what_default_says(tmp_path):
    text = """
data:
  train: [{data_path: a.jsonl}, {data_path: b.jsonl, output_key: reply}]
  default: {output_key: answer, system_prompt: Be brief.}
"""
    first, second = load(text=text, tmp_path=tmp_path).data.train
    assert (first.output_key, second.output_key) == ("answer", "reply")
    assert first.system_prompt == second.system_prompt == "Be brief."


@pytest.mark.parametrize("text", [FLAT, NESTED], ids=["flat", "nested"])
def test_a_path_given_as_an_override_wins_over_the_file(tmp_path, text):
    data = load(
        "+data.train_data_path=new.jsonl" if text == NESTED else "data.train_data_path=new.jsonl",
        text=text,
        tmp_path=tmp_path,
    ).data
    assert paths(data.train) == ["new.jsonl"]
    assert paths(data.validation) == ["b.jsonl"]
    assert paths(load("++data.train.data_path=new.jsonl", text=text, tmp_path=tmp_path).data.train) == ["new.jsonl"]


def test_the_later_of_two_overrides_wins():
    flat, nested = "++data.train_data_path=flat.jsonl", "++data.train.data_path=nested.jsonl"
    assert paths(load(flat, nested).data.train) == ["nested.jsonl"]
    assert paths(load(nested, flat).data.train) == ["flat.jsonl"]


def test_a_section_without_a_path_refines_the_flat_one():
    (dataset,) = load("data.train_data_path=a.jsonl", "++data.train.input_key=question").data.train
    assert dataset.data_path == "a.jsonl"
    assert dataset.input_key == "question"


def test_a_flat_path_beside_a_list_of_sections_is_a_contradiction_too(tmp_path):
    text = "data: {train_data_path: a.jsonl, train: [{input_key: q}, {input_key: p}]}"
    with pytest.raises(ConfigError, match="say different things"):
        load(text=text, tmp_path=tmp_path)


def test_two_paths_in_one_file_contradict_each_other(tmp_path):
    text = "data:\n  train_data_path: a.jsonl\n  train:\n    data_path: b.jsonl"
    with pytest.raises(ConfigError, match=r"own\.yaml:2 and .*own\.yaml:3.*set one of them"):
        load(text=text, tmp_path=tmp_path)


def test_keys_set_to_null_mean_their_usual_names():
    (dataset,) = load("data.train_data_path=a.jsonl", "data.output_key=null", "data.tool_key=null").data.train
    assert (dataset.output_key, dataset.tool_key) == ("output", "tools")


def test_a_dataset_without_data_is_missed(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.train\.1 names no data"):
        load(text="data: {train: [{data_path: a.jsonl}, {input_key: q}]}", tmp_path=tmp_path)


def test_the_older_name_of_a_custom_template(tmp_path):
    for text in (
        'policy: {tokenizer: {custom_template: "{{ messages }}"}}',
        'policy: {tokenizer: {chat_template: "{{ messages }}"}}',
    ):
        tokenizer = load("data.train_data_path=a.jsonl", text=text, tmp_path=tmp_path).policy.tokenizer
        assert tokenizer.chat_template == "{{ messages }}"
        assert tokenizer.custom_template is None


def test_two_different_templates_contradict_each_other(tmp_path):
    text = "policy: {tokenizer: {chat_template: default, custom_template: other}}"
    with pytest.raises(ConfigError, match="say different things"):
        load("data.train_data_path=a.jsonl", text=text, tmp_path=tmp_path)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{name: /tok}", "default"),
        ("{name: /tok, chat_template: default}", "default"),
        ("{name: /tok, chat_template: NULL}", None),
        ("{name: /tok, chat_template: infer_from_data}", "infer_from_data"),
        ("{name: /tok, chat_template: template.jinja}", "template.jinja"),
    ],
)
def test_a_tokenizer_section_without_a_template_means_the_tokenizers_own(tmp_path, section, expected):
    text = f"policy: {{tokenizer: {section}}}"
    tokenizer = load("data.train_data_path=a.jsonl", text=text, tmp_path=tmp_path).policy.tokenizer
    assert tokenizer.chat_template == expected
    assert tokenizer.name == "/tok"


def test_without_a_tokenizer_section_the_template_comes_from_the_data():
    tokenizer = load("data.train_data_path=a.jsonl").policy.tokenizer
    assert tokenizer.chat_template == "infer_from_data"
    assert tokenizer.name == "/models/base"


def scheduler(text):
    return load("data.train_data_path=a.jsonl", f"++policy.scheduler={text}").policy.scheduler


def test_one_scheduler_or_a_list_with_milestones():
    one = scheduler("{name: torch.A, kwargs: {t: 1e-3}}")
    assert one.parts == (ObjectConfig(name="torch.A", kwargs={"t": 1e-3}),)
    assert one.milestones == ()
    two = scheduler("[{name: torch.A, kwargs: {}}, {name: torch.B}, {milestones: [5]}]")
    assert [part.name for part in two.parts] == ["torch.A", "torch.B"]
    assert two.milestones == (5,)
    assert scheduler("null") is None
    assert scheduler("[]") is None


@pytest.mark.parametrize("milestones", ["[5, 2]", "[3, 3]", "[0, 3]"])
def test_milestones_that_leave_a_scheduler_no_step_are_refused(milestones):
    with pytest.raises(ConfigError, match="one of its schedulers would never run"):
        scheduler(f"[{{name: a.A}}, {{name: a.B}}, {{name: a.C}}, {{milestones: {milestones}}}]")
    assert scheduler("[{name: a.A}, {name: a.B}, {name: a.C}, {milestones: [2, 5]}]").milestones == (2, 5)


@pytest.mark.parametrize("text", ["[{name: a.A}, {name: a.B}]", "[{name: a.A}, {milestones: [1]}]"])
def test_milestones_must_fit_the_schedulers(text):
    with pytest.raises(ConfigError, match=r"has \d schedulers and \d milestones"):
        scheduler(text)


def test_a_misspelt_key_of_a_scheduler_is_found():
    with pytest.raises(ConfigError, match=r"unknown key policy\.scheduler\.0\.kwarg"):
        scheduler("[{name: a.A, kwarg: {}}]")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("checkpointing.metric_name=val_loss", "val:val_loss"),
        ("checkpointing.metric_name=val:val_loss", "val:val_loss"),
        ("checkpointing.metric_name=train:loss", "train:loss"),
        ("checkpointing.metric_name=null", None),
    ],
)
def test_the_older_spelling_of_a_metric(override, expected):
    config = load("data.train_data_path=a.jsonl", override)
    assert config.checkpointing.metric_name == expected
    assert config.sft.val_at_end == (expected == "val:val_loss")


def test_validation_at_the_end_can_be_refused():
    assert load("data.train_data_path=a.jsonl", "sft.val_at_end=false").sft.val_at_end is False


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [(None, None, (1, None)), (None, 7, (None, 7)), (3, None, (3, None)), (3, 7, (3, 7))],
)
def test_a_run_without_limits_is_one_epoch(epochs, steps, expected):
    overrides = [f"sft.max_num_epochs={epochs}", f"sft.max_num_steps={steps}"]
    sft = load("data.train_data_path=a.jsonl", *overrides).sft
    assert (sft.max_num_epochs, sft.max_num_steps) == expected


@pytest.mark.parametrize("value", ["null", "0", "0.0"])
def test_no_clipping_is_written_as_null_or_zero(value):
    assert load("data.train_data_path=a.jsonl", f"policy.max_grad_norm={value}").policy.max_grad_norm is None


def test_the_other_names_of_lora_initialisation():
    peft = load(
        "data.train_data_path=a.jsonl", "++policy.megatron_cfg.peft.lora_A_init=uniform"
    ).policy.megatron_cfg.peft
    assert peft.lora_A_init_method == "uniform"
