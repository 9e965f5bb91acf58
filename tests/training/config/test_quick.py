"""The short way makes of the packaged defaults what OmegaConf makes of them, and leaves to it whatever is not plain."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.config import load_config
from skills_pipe.training.config.files import load_layers
from skills_pipe.training.config.grammar import parse_overrides
from skills_pipe.training.config.origins import PACKAGED, Origins
from skills_pipe.training.config.overrides import apply_overrides
from skills_pipe.training.config.quick import resolve_quickly
from skills_pipe.training.config.read import known_keys
from skills_pipe.training.config.resolvers import resolve

NEEDED = ["++policy.model_name=/models/base", "++data.train_data_path=rows.jsonl"]
KEYS = [*known_keys(), "policy.optimizer.kwargs.lr", "policy.optimizer.kwargs.new", "policy.tokenizer.name.deep", "own"]
VALUES = ["2", "0", "-1", "1.5", "1e-6", "true", "null", "word", "/a/path", "''", "'???'", "'a ${policy.lr}'", "[1, 2]"]


def quickly(texts):
    overrides, unreadable = parse_overrides(texts)
    assert not unreadable
    return resolve_quickly(overrides, Origins(files=(PACKAGED,), overrides=overrides))


def with_omegaconf(texts):
    overrides, _ = parse_overrides(texts)
    layers = load_layers(None)
    left_out = apply_overrides(layers.tree, overrides, known_keys())
    found = resolve(layers.tree, Origins(files=layers.files, overrides=overrides))
    return found, [*left_out.unknown, *left_out.wrong]


def described(found):
    """A tree and its problems with the order of keys, the types of numbers, and places: ``repr`` shows them all."""
    tree, unresolved = found
    missing = [str(problem) for problem in unresolved.missing]
    return repr(tree), sorted(unresolved.derived), missing, unresolved.failed, unresolved.followed


@given(
    st.lists(
        st.builds("{}{}={}".format, st.sampled_from(["", "++", "+"]), st.sampled_from(KEYS), st.sampled_from(VALUES)),
        max_size=4,
    )
)
def test_omegaconf_makes_the_same_of_the_defaults_and_finds_no_mistake_that_the_short_way_hides(texts):
    quick = quickly(texts)
    if quick is not None:
        found, problems = with_omegaconf(texts)
        assert described(quick) == described(found)
        assert not problems


@pytest.mark.parametrize(
    "texts",
    [
        [],
        NEEDED,
        [*NEEDED, "++sft.max_num_steps=1000", "++policy.max_total_sequence_length=2048", "++cluster.num_nodes=8"],
        [*NEEDED, "policy.lr=1e-6", "++policy.optimizer.kwargs.lr=2e-6", "++policy.optimizer.kwargs.fused=true"],
        ["++logger.log_dir=/logs", "++logger.wandb.project=null"],
        ["++policy.train_micro_batch_size=2", "++policy.precision='two words'"],
    ],
)
def test_what_a_launcher_sets_goes_the_short_way(texts):
    quick = quickly(texts)
    assert quick is not None
    assert described(quick) == described(with_omegaconf(texts)[0])


@pytest.mark.parametrize(
    "text",
    [
        "~policy.lr",
        "+policy.lr=2",
        "no.such.key=1",
        "policy.no_such_key=1",
        "++own.section=1",
        "++policy.lr='${policy.min_lr}'",
        "++policy.lr='???'",
        "++policy.optimizer=none",
        "++policy.optimizer.name=torch.optim.SGD",
        "++logger.wandb.tags=[a, b]",
        "++policy.optimizer.kwargs.betas.0=1",
        "++logger.log_dir=7",
        "++policy.max_total_sequence_length=many",
        "++policy.train_micro_batch_size=true",
    ],
)
def test_what_is_not_plain_is_left_to_omegaconf(text):
    assert quickly([*NEEDED, text]) is None


def test_products_follow_their_factors():
    config = load_config(None, [*NEEDED, "++policy.max_total_sequence_length=64", "++policy.train_micro_batch_size=3"])
    assert config.policy.dynamic_batching.train_mb_tokens == 192


def test_a_reference_to_a_value_that_somebody_overrode_follows_it():
    tree, _ = quickly(["++policy.lr=3e-5"])
    assert tree["policy"]["megatron_cfg"]["optimizer"]["lr"] == 3e-5
    tree, _ = quickly(["++policy.megatron_cfg.optimizer.lr=1"])
    assert tree["policy"]["megatron_cfg"]["optimizer"]["lr"] == 1
    assert tree["policy"]["lr"] != 1
