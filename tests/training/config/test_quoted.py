"""Any text comes through an override as it is."""

from hypothesis import example, given
from hypothesis import strategies as st

from skills_pipe.training.config import load_config
from skills_pipe.training.config.quoted import quoted


@given(st.text(st.sampled_from("a'\"\\$ {},=:[]é\t"), min_size=1, max_size=8))
@example("rows\\1.jsonl")
@example("it's")
@example("a\\'b")
@example("ends in \\")
@example("${x}")
@example("\\${x}")
@example("'\\\\${'")
def test_a_text_comes_through_as_it_is(text):
    overrides = [f"++policy.model_name={quoted(text)}", "++data.train_data_path=rows.jsonl"]
    assert load_config(None, overrides).policy.model_name == text
