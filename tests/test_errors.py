"""Advice on misspelt words."""

from __future__ import annotations

import pytest

from skills_pipe.errors import did_you_mean

KEYS = ("policy", "policy.model_name", "sft", "sft.max_num_steps", "data.seed")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("sft.max_num_step", "sft.max_num_steps"),
        ("polcy", "policy"),
        ("policy.seed", "data.seed"),  # a right key in a wrong section
        ("policy.mode_name", "policy.model_name"),
    ],
)
def test_the_closest_word_is_named(word, near):
    assert did_you_mean(word, KEYS) == f"did you mean {near!r}?"


@pytest.mark.parametrize("word", ["zzz", "policy.foo", "sft.x"])
def test_nothing_near_is_no_advice_and_the_section_of_a_wrong_key_is_not_near(word):
    assert did_you_mean(word, KEYS) is None
