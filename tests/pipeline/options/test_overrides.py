"""Values of any text reach a program as they are, through Hydra's own grammar."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from skills_pipe.pipeline.options.overrides import key_of, of_result, override, value_of

texts = st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(
    lambda text: "$" not in text
)


def read_by_hydra(word: str):
    return OverridesParser.create().parse_override(word).value()


@given(texts)
@example("/data/with space/it's.jsonl")
@example("C:\\dir\\'quoted'\\")
@example("1e5")
@example("null")
@example("True")
@example("[1,2]")
@example("{a: b}")
@example("007")
@example("inf")
@example("trailing\\")
@example("a=b,c")
def test_hydra_reads_the_very_text(text):
    assert read_by_hydra(override("a.b", text)) == text


def test_without_quotes_hydra_would_read_something_else():
    assert read_by_hydra("++a=1e5") != "1e5"
    assert read_by_hydra("++a=null") is None


def test_plain_paths_stay_readable():
    assert override("policy.model_name", "meta-llama/Llama-3.1-8B") == "++policy.model_name=meta-llama/Llama-3.1-8B"
    assert override("a", True) == "++a=true"
    assert override("a", 3) == "++a=3"


@pytest.mark.parametrize(("word", "key"), [("++a.b=c=d", "a.b"), ("+a=1", "a"), ("~a.b", "a.b"), ("a=1", "a")])
def test_the_key_of_a_word(word, key):
    assert key_of(word) == key


def test_the_last_value_of_a_key_counts():
    assert value_of(["++a=1", "++b=2", "++a='x y'"], "a") == "x y"
    assert value_of(["++a=1"], "b") is None


def test_keys_that_do_not_change_the_result_are_left_out_of_identities():
    words = ["++logger.wandb_enabled=true", "++sft.max_num_steps=3", "++checkpointing.stop_after_steps=2"]
    assert of_result(words) == {"++sft.max_num_steps": "3"}


def test_order_and_repetition_of_keys_do_not_change_identities():
    assert of_result(["++a=1", "+b=2", "a=3"]) == of_result(["++b=2", "++a=3"]) == {"++a": "3", "++b": "2"}
    assert of_result(["~a"]) == {"~a": ""}
