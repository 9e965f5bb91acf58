"""Datasets by name: what may be left out for each, what is set aside, and what validation sets are called."""

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import ConfigErrors, load_config
from skills_pipe.training.config.dataset_names import DATASETS, canonical_name, has_plain_rows, is_id


def load(*overrides, text=None, folder=None):
    path = None
    if text is not None:
        path = folder / "own.yaml"
        path.write_text(text)
    return load_config(path, ["policy.model_name=none", *overrides]).data


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("ResponseDataset", "ResponseDataset"),
        ("response_dataset", "ResponseDataset"),
        ("prompt_response_dataset", "ResponseDataset"),
        ("prompt_response", "ResponseDataset"),
        ("OpenAIFormatDataset", "openai_format"),
        ("open_assistant", "OpenAssistant"),
        ("OpenAssistant", "OpenAssistant"),
        ("Squad", "squad"),
        ("openmathinstruct2", "OpenMathInstruct-2"),
        ("OpenMathInstruct-2", "OpenMathInstruct-2"),
        ("tulu3_sft_mixture", "tulu3_sft_mixture"),
        ("my.data.Rows", "my.data.Rows"),
        ("squads", None),
    ],
)
def test_names_as_other_programs_write_them(written, name):
    assert canonical_name(written) == name


def test_a_dataset_by_name_needs_nothing_else():
    data = load("data.dataset_name=Squad")
    assert [(d.data_path, d.split) for d in data.train + data.validation] == [
        ("rajpurkar/squad", None),
        ("rajpurkar/squad", "validation"),
    ]


def test_what_a_name_stands_for_can_be_changed():
    (first,) = load("data.dataset_name=openmathinstruct2").train
    assert (first.split, first.input_key, first.output_key) == ("train_1M", "problem", "expected_answer")
    assert first.split_validation_size == 0.05
    overrides = ["data.train_split=train_2M", "data.output_key=generated_solution", "data.split_validation_size=100"]
    (second,) = load("data.dataset_name=openmathinstruct2", *overrides).train
    assert (second.split, second.output_key, second.split_validation_size) == ("train_2M", "generated_solution", 100)
    (third,) = load("data.dataset_name=squad", "data.train_data_path=/copy/squad").train
    assert third.data_path == "/copy/squad"


def test_a_path_may_be_a_dataset_by_name_with_its_own_validation():
    data = load("data.train_data_path=Squad")
    assert data == load("data.dataset_name=squad")
    (trees,) = load("data.train_data_path=OpenAssistant").train
    assert (trees.data_path, trees.split_validation_size) == ("OpenAssistant/oasst1", 0.05)
    data = load("data.train_data_path=a.jsonl", "data.val_data_path=squad")
    assert [(d.dataset_name, d.data_path) for d in data.train + data.validation] == [
        ("ResponseDataset", "a.jsonl"),
        ("squad", "rajpurkar/squad"),
    ]
    assert load("data.train_data_path=squad", "data.val_data_path=b.jsonl").validation[0].data_path == "b.jsonl"


def test_a_path_may_be_the_id_of_a_dataset_that_has_a_name():
    """The id says what rows look like; which of them are trained is left to the usual keys."""
    (math,) = load("data.train_data_path=nvidia/OpenMathInstruct-2").train
    assert (math.dataset_name, math.input_key, math.output_key) == ("OpenMathInstruct-2", "problem", "expected_answer")
    assert (math.split, math.split_validation_size) == (None, None)
    (plain,) = load("data.train_data_path=rajpurkar/squad", "data.dataset_name=ResponseDataset").train
    assert (plain.dataset_name, plain.data_path) == ("ResponseDataset", "rajpurkar/squad")
    (other,) = load("data.train_data_path=organisation/squad").train
    assert (other.dataset_name, other.data_path) == ("ResponseDataset", "organisation/squad")


@pytest.mark.parametrize("path", ["./squad", "/data/squad", "squad.jsonl", "alpaca", "text", "squads"])
def test_a_path_that_only_looks_like_a_name_is_a_path(path):
    (dataset,) = load(f"data.train_data_path={path}").train
    assert (dataset.dataset_name, dataset.data_path) == ("ResponseDataset", path)


@pytest.mark.parametrize("override", ["data.train_data_path=", "data.train_data_path=null", "++data.train.data_path="])
def test_an_empty_path_is_none(override):
    with pytest.raises(ConfigError, match=r"there is no training data|data\.train names no data"):
        load(override)
    assert load("data.train_data_path=a.jsonl", "data.val_data_path=").validation == ()


def test_sections_name_datasets_by_their_paths_too(tmp_path):
    text = "data: {train: [{data_path: squad}, {data_path: a.jsonl}], validation: {data_path: rajpurkar/squad}}"
    data = load(text=text, folder=tmp_path)
    assert [(d.dataset_name, d.data_path) for d in data.train + data.validation] == [
        ("squad", "rajpurkar/squad"),
        ("ResponseDataset", "a.jsonl"),
        ("squad", "rajpurkar/squad"),
    ]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("nvidia/OpenMathInstruct-2", True),
        ("org/data-v1.5", True),
        ("data/rows.jsonl", False),
        ("a/b/c", False),
        ("/a/b", False),
        ("./b", False),
        ("rows/*", False),
        ("squad", False),
    ],
)
def test_which_paths_can_be_ids(path, expected):
    assert is_id(path) == expected


def test_other_validation_data_means_that_nothing_is_set_aside_by_default():
    data = load("data.dataset_name=OpenAssistant", "data.val_data_path=own.jsonl")
    assert data.train[0].split_validation_size is None
    asked = load("data.dataset_name=OpenAssistant", "data.val_data_path=own.jsonl", "data.split_validation_size=0.1")
    assert (asked.train[0].split_validation_size, asked.validation[0].split_validation_size) == (0.1, None)


def test_sections_by_name(tmp_path):
    text = "data: {train: [{dataset_name: squad, split: train}, {data_path: a.jsonl, weight: 2}], default: {seed: 7}}"
    squad, rows = load(text=text, folder=tmp_path).train
    assert (squad.dataset_name, squad.weight, squad.seed) == ("squad", 1, 7)
    assert (rows.dataset_name, rows.weight, rows.input_key) == ("ResponseDataset", 2, "input")


def test_a_class_of_the_users_needs_no_path():
    (dataset,) = load("data.dataset_name=my.data.Rows").train
    assert (dataset.dataset_name, dataset.data_path, dataset.name) == ("my.data.Rows", None, "Rows")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("squadd", "did you mean 'squad'?"),
        ("Alpacca", "did you mean 'alpaca'?"),
        ("x", "give one of ResponseDataset, "),
    ],
)
def test_an_unknown_name_is_refused_once_with_advice(name, advice):
    with pytest.raises(ConfigError) as caught:
        load(f"data.dataset_name={name}", "data.train_data_path=a.jsonl", "data.val_data_path=b.jsonl")
    assert f"there is no dataset '{name}' (override 'data.dataset_name={name}'): {advice}" in str(caught.value)
    assert not isinstance(caught.value, ConfigErrors) or len(caught.value.problems) == 1


def test_an_unknown_name_in_a_section_says_where(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no dataset 'squadd' \(.*own\.yaml:3\)"):
        load(text="data:\n  train:\n    dataset_name: squadd", folder=tmp_path)


def test_validation_sets_are_called_by_their_files_or_as_one_says(tmp_path):
    text = "data: {train_data_path: a.jsonl, validation: [{data_path: d/math.jsonl}, {data_path: c.jsonl, name: code}]}"
    assert [dataset.name for dataset in load(text=text, folder=tmp_path).validation] == ["math", "code"]


def test_two_validation_sets_of_one_name_are_refused(tmp_path):
    text = "data: {train_data_path: a.jsonl, validation: [{data_path: d/val.jsonl}, {data_path: e/val.jsonl}]}"
    with pytest.raises(ConfigError, match=r"2 validation datasets are called 'val' .*give each a name of its own"):
        load(text=text, folder=tmp_path)


def test_aligners_keys(tmp_path):
    text = """
data:
  train:
    dataset_name: aligner_chat
    data_path: a.jsonl
    truncation_field: input,context
    truncation_method: left
    chat_prompt_tokens: {turn_start: "<t>"}
"""
    (dataset,) = load(text=text, folder=tmp_path).train
    assert (dataset.truncation_field, dataset.truncation_method) == ("input,context", "left")
    tokens = dataset.chat_prompt_tokens
    assert (tokens.turn_start, tokens.system_turn_start, tokens.end_of_name) == ("<t>", "\x00", "\n")
    with pytest.raises(ConfigError, match="turn_strat"):
        load(text=text.replace("turn_start", "turn_strat"), folder=tmp_path)


def test_only_rows_of_messages_or_pairs_are_looked_at_before_a_run():
    looked_at = [name for name in DATASETS if has_plain_rows(name, "rows.jsonl")]
    assert looked_at == ["ResponseDataset", "openai_format", "OpenMathInstruct-2", "tulu3_sft_mixture"]
    assert not has_plain_rows("ResponseDataset", "rows.parquet")
    assert not has_plain_rows("my.data.Rows", "rows.jsonl")


def test_training_data_may_be_called_as_the_validation_data_is():
    data = load("data.train_data_path=a/rows.jsonl", "data.val_data_path=b/rows.jsonl")
    assert [dataset.name for dataset in (*data.train, *data.validation)] == ["rows", "rows"]
    with pytest.raises(ConfigError, match="2 validation datasets are called 'rows'"):
        load("data.train_data_path=a/rows.jsonl", "data.val_data_path=b/rows.jsonl", "data.split_validation_size=9")


@pytest.mark.parametrize("name", ["val:math/val_loss", "val:code/val_loss", "val:val_loss"])
def test_checkpoints_are_ranked_by_the_loss_of_a_set_that_there_is(tmp_path, name):
    text = "data: {train_data_path: a.jsonl, validation: [{data_path: math.jsonl}, {data_path: code.jsonl}]}"
    load(f"checkpointing.metric_name={name}", text=text, folder=tmp_path)
    with pytest.raises(ConfigError, match=r"is the loss of no .*one of val:val_loss, val:math/val_loss, val:code/"):
        load("checkpointing.metric_name=val:art/val_loss", text=text, folder=tmp_path)
