"""What the programs that look at data take: options, and the keys of training."""

import pytest

from skills_pipe.errors import ConfigError, OptionError
from skills_pipe.training.data.inspection.arguments import data_parser, parse, training_config


def config(*words):
    parser = data_parser("program", "description")
    parser.add_argument("--ids", action="store_true")
    return training_config(*parse(parser, words))


def test_options_are_keys_of_training():
    made = config("rows.jsonl", "--hf_model=org/model", "--validation_data", "it's, val.jsonl")
    assert made.policy.model_name == "org/model"
    assert [dataset.data_path for dataset in made.data.train] == ["rows.jsonl"]
    assert [dataset.data_path for dataset in made.data.validation] == ["it's, val.jsonl"]


def test_overrides_may_stand_anywhere_and_count_most():
    made = config("++data.add_bos=true", "rows.jsonl", "--ids", "--hf_model=a", "policy.model_name=b")
    assert made.data.add_bos
    assert made.policy.model_name == "b"


def test_a_configuration_of_a_run_names_the_data(tmp_path):
    path = tmp_path / "sft.yaml"
    path.write_text("policy: {model_name: m}\ndata: {train_data_path: a.jsonl, add_bos: true}\n")
    made = config("--config", str(path))
    assert (made.data.train[0].data_path, made.data.add_bos) == ("a.jsonl", True)
    assert config("b.jsonl", "--config", str(path)).data.train[0].data_path == "b.jsonl"


@pytest.mark.parametrize("words", [["--hf_modle=m"], ["a.jsonl", "b.jsonl"], ["a.jsonl", "-x"]])
def test_other_words_are_mistakes(words):
    with pytest.raises(OptionError, match=r"is neither an option nor \+\+key=value"):
        config(*words)


def test_data_and_model_must_be_named():
    with pytest.raises(ConfigError, match="there is no training data"):
        config("--hf_model=m")
    with pytest.raises(ConfigError, match=r"policy\.model_name"):
        config("rows.jsonl")
