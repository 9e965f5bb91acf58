"""Overrides follow Hydra: its own loader is the oracle for what an override does to a tree."""

from __future__ import annotations

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import ConfigErrors, load_config
from skills_pipe.training.config.grammar import parse_overrides, read_plain, read_with_hydra
from skills_pipe.training.config.overrides import apply_overrides
from skills_pipe.training.config.read import known_keys, names_elsewhere

TREE = """
a: 1
s: text
z: null
l: [1, 2, 3]
d: {x: 1, y: {deep: true}}
ref: ${a}
"""


def ours(overrides, known=()):
    tree = OmegaConf.create(TREE)
    parsed, unreadable = parse_overrides(overrides)
    left_out = apply_overrides(tree, parsed, known)
    problems = [*unreadable, *left_out.unknown, *left_out.wrong]
    return OmegaConf.to_container(tree), problems


def hydras(overrides):
    """What Hydra makes of the same overrides; None when it refuses them."""
    tree = OmegaConf.create(TREE)
    OmegaConf.set_struct(tree, True)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        if any(override.is_sweep_override() for override in parsed):
            return None
        ConfigLoaderImpl._apply_overrides_to_config(overrides=parsed, cfg=tree)
    except Exception:
        return None
    return OmegaConf.to_container(tree)


ACCEPTED = [
    ["a=2"],
    ["a=null"],
    ["a=None"],
    ["a=true"],
    ["a=True"],
    ["a=1e-5"],
    ["a=1.0e-5"],
    ['a="1e-5"'],
    ["a='x y'"],
    ["s="],
    ["s=00:03:45:00"],
    ["s=/path/to-some.file x"],
    ["s='a,b'"],
    ["+new=1"],
    ["+q.r.t=1"],
    ["++a=3"],
    ["++q.r=3"],
    ["++q.r=3", "q.r=4"],
    ["+z=5"],
    ["l=[3,4]"],
    ["l.0=9"],
    ["+l=[7]"],
    ["d.x=5"],
    ["++d={c:5}"],
    ["+d={c:5}"],
    ["d={x:5}"],
    ["++d.y.deep=[a,{b:null}]"],
    ["~a"],
    ["~d"],
    ["~d.y"],
    ["~d.y.deep"],
    ["~a=1"],
    ["ref=4"],
    ["a=7", "a=8"],
    ["a=7", "~a", "+a=9"],
    ["d.y=${a}"],
    [r"s='it\'s'"],
]

REFUSED = [
    ["b=2"],
    ["d.unknown=2"],
    ["d={new:5}"],
    ["+a=2"],
    ["~b"],
    ["~d.b"],
    ["~a=2"],
    ["s=a,b"],
    ["a"],
    ["=3"],
    ["a=[1"],
    ["a@package=3"],
    ["l.7=1"],
    ["s=x=y(z"],
]


@pytest.mark.parametrize("overrides", ACCEPTED, ids=" ".join)
def test_does_what_hydra_does(overrides):
    expected = hydras(overrides)
    assert expected is not None
    tree, problems = ours(overrides)
    assert not problems
    assert tree == expected
    assert repr(tree) == repr(expected)  # 1 == True == 1.0 must not pass for each other


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_refuses_what_hydra_refuses_and_leaves_the_tree_alone(overrides):
    assert hydras(overrides) is None
    tree, problems = ours(overrides)
    assert len(problems) == 1
    assert "\n" not in str(problems[0])
    assert overrides[0] in str(problems[0])
    assert tree == OmegaConf.to_container(OmegaConf.create(TREE))


def test_the_oracle_itself_tells_right_from_wrong():
    assert hydras(["a=2"]) != hydras(["a=3"])
    assert ours(["a=2"])[0] != hydras(["a=3"])


VALUES = st.one_of(st.integers(-9, 9), st.booleans(), st.none(), st.sampled_from(["x", "''", "[1,2]", "{x:1}", "1e-5"]))
KEYS = st.sampled_from(["a", "s", "d", "d.x", "d.y.deep", "d.new", "new", "new.deep", "l", "l.1", "z"])
ANY_OVERRIDE = st.one_of(
    st.builds(lambda sign, key, value: f"{sign}{key}={value}", st.sampled_from(["", "+", "++"]), KEYS, VALUES),
    st.builds("~{}".format, KEYS),
)


@given(st.lists(ANY_OVERRIDE, min_size=1, max_size=4))
def test_any_sequence_of_overrides_ends_as_with_hydra(overrides):
    expected = hydras(overrides)
    tree, problems = ours(overrides)
    deletes_a_null = expected is None and not problems and any(override.startswith("~") for override in overrides)
    assume(not deletes_a_null)
    if expected is None:
        assert problems
    else:
        assert not problems
        assert repr(tree) == repr(expected)


def test_a_key_of_the_schema_counts_as_present():
    tree, problems = ours(["d.known=5"], known={"d.known"})
    assert not problems
    assert tree["d"]["known"] == 5


def test_a_key_that_refers_to_what_is_not_set_yet_can_be_set_and_removed():
    for text in ("a=1", "++a=1", "~a"):
        tree = OmegaConf.create({"a": "${b}", "b": "???"})
        overrides, _ = parse_overrides([text])
        problems = apply_overrides(tree, overrides, [])
        assert (problems.unknown, problems.wrong) == ([], [])
        assert OmegaConf.to_container(tree) == ({"b": "???"} if text == "~a" else {"a": 1, "b": "???"})


@pytest.mark.parametrize("text", ["l.x=1", "++l.x=1", "+l.x=1", "++l.x.y=null"])
def test_a_name_in_a_list_is_a_mistake(text):
    tree, problems = ours([text], known={"l.x"})
    assert len(problems) == 1
    assert tree["l"] == [1, 2, 3]


def test_a_key_that_is_null_can_be_removed():
    tree, problems = ours(["~z"])
    assert not problems
    assert "z" not in tree


def test_advice_names_the_key_that_was_meant():
    _, (problem,) = ours(["d.yy=5"], known={"d.y"})
    assert str(problem) == "unknown key d.yy (override 'd.yy=5'): did you mean 'd.y'?"


def test_a_comma_outside_quotes_gets_advice_that_works():
    _, (problem,) = ours(["s=a,b"])
    assert "s=[a,b]" in str(problem)
    assert "s='a,b'" in str(problem)
    assert ours(["s=[a,b]"])[0]["s"] == ["a", "b"]
    assert ours(["s='a,b'"])[0]["s"] == "a,b"


def test_every_override_that_fails_is_reported():
    tree, problems = ours(["b=1", "a=2", "+a=3", "s=x,y", "~c"])
    assert len(problems) == 4
    assert tree["a"] == 2


PLAIN_LOOKING = st.builds(
    "{}{}={}".format,
    st.sampled_from(["", "+", "++", "~"]),
    st.from_regex(r"[a-c_][a-c0-9_]?(\.[a-c0-9_]{1,2}){0,2}", fullmatch=True),
    st.one_of(
        st.text("abeE019_./-:+ ,[]'", max_size=8),
        st.from_regex(r"[+-]?[0-9]{1,3}(\.[0-9]{0,2})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
        st.sampled_from(["null", "None", "NULL", "true", "False", "TRUE", "nan", "inf", "-inf", "NaN", "1_000", "???"]),
    ),
)


@settings(max_examples=1000)
@given(PLAIN_LOOKING)
def test_the_short_way_reads_what_hydra_reads(text):
    short = read_plain(text)
    assert short is None or repr(short) == repr(read_with_hydra(text))


@pytest.mark.parametrize("text", ["++a.b=/models/base", "a=12", "+a=1e-5", "++a=0.1", "a=val_loss", "a=null", "a=True"])
def test_the_short_way_is_taken_for_plain_overrides(text):
    assert repr(read_plain(text)) == repr(read_with_hydra(text))


@pytest.mark.parametrize("text", ["a=[1]", "a='x'", "~a", "a=x,y", "a=", "a=1_0", "a=nan", "a=${b}", "a@p=1", "a=x y"])
def test_the_short_way_leaves_the_rest_to_hydra(text):
    assert read_plain(text) is None


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("policy.dtensor_cfg.lora_cfg.rank", "policy.dtensor_cfg.lora_cfg.dim"),
        ("policy.megatron_cfg.peft.lora_alpha", "policy.megatron_cfg.peft.alpha"),
        ("policy.megatron_cfg.lora_rank", "policy.megatron_cfg.peft.dim"),
        ("policy.learning_rate", "policy.lr"),
        ("policy.max_length", "policy.max_total_sequence_length"),
        ("sft.num_train_epochs", "sft.max_num_epochs"),
        ("max_steps", "sft.max_num_steps"),
        ("trainer.max_steps", "sft.max_num_steps"),
        ("model.tensor_model_parallel_size", "policy.tensor_model_parallel_size"),
        ("sequence_len", "policy.max_total_sequence_length"),
        ("val_set_size", "data.split_validation_size"),
        ("adapter", "policy.dtensor_cfg.lora_cfg"),
        ("greater_is_better", "checkpointing.higher_is_better"),
        ("save_steps", "checkpointing.save_period"),
        ("policy.lora.rank", "policy.dtensor_cfg.lora_cfg.dim"),
        ("policy.lora.r", "policy.dtensor_cfg.lora_cfg.dim"),
        ("policy.lora.alpha", "policy.dtensor_cfg.lora_cfg.alpha"),
        ("policy.lora_rank", "policy.dtensor_cfg.lora_cfg.dim"),
        ("policy.lora_alpha", "policy.dtensor_cfg.lora_cfg.alpha"),
        ("policy.lora", "policy.dtensor_cfg.lora_cfg"),
        ("policy.warmup_steps", "policy.scheduler"),
        ("policy.bf16", "policy.precision"),
        ("fp16", "policy.precision"),
        ("gradient_checkpointing", "policy.dtensor_cfg.activation_checkpointing"),
        ("model_name_or_path", "policy.model_name"),
        ("output_dir", "checkpointing.checkpoint_dir"),
        ("checkpointing.save_total_limit", "checkpointing.keep_top_k"),
        ("packing", "policy.sequence_packing"),
        ("adam_beta1", "policy.optimizer"),
        ("policy.optimizer.lr", "policy.optimizer.kwargs.lr"),
        ("policy.optimizer.nam", "policy.optimizer.name"),
    ],
)
@pytest.mark.parametrize("sign", ["", "++"])
def test_names_of_other_trainers_are_answered_with_the_key(word, key, sign):
    with pytest.raises(ConfigError) as raised:
        load_config(None, ["policy.model_name=m", "data.train_data_path=d.jsonl", f"{sign}{word}=8"])
    assert f"did you mean {key!r}?" in str(raised.value)


def test_an_option_in_the_place_of_an_override_is_answered_with_the_override():
    with pytest.raises(ConfigError, match=r"'--policy\.lr=1' is no override: write \+\+policy\.lr=1\n"):
        load_config(None, ["--policy.lr=1"])


@pytest.mark.parametrize("sign", ["", "++"])
def test_one_name_elsewhere_may_be_two_keys(sign):
    with pytest.raises(ConfigError) as raised:
        load_config(None, [f"{sign}policy.gradient_accumulation_steps=8"])
    both = "did you mean 'policy.train_global_batch_size' and 'policy.train_micro_batch_size'?"
    assert both in str(raised.value)


def test_each_key_of_a_section_that_others_call_so_is_answered_and_a_strange_section_once():
    with pytest.raises(ConfigErrors) as raised:
        load_config(None, ["++policy.lora={rank: 8, dropout: 0.1}", "++policy.strange={one: 1, two: 2}"])
    told = [str(problem) for problem in raised.value.problems if "unknown" in str(problem)]
    assert [line.partition(" (")[0] for line in told] == [
        "unknown key policy.lora.rank",
        "unknown key policy.lora.dropout",
        "unknown key policy.strange",
    ]
    assert told[0].endswith("did you mean 'policy.dtensor_cfg.lora_cfg.dim'?")
    assert told[1].endswith("did you mean 'policy.dtensor_cfg.lora_cfg.dropout'?")


@pytest.mark.parametrize(
    ("value", "meant"), [("fp32", "float32"), ("float", "float32"), ("fp16", "float16"), ("bf16", "bfloat16")]
)
def test_types_are_known_by_their_other_names(value, meant):
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        load_config(None, [f"policy.precision={value}"])


def test_other_words_for_a_type_mean_none():
    with pytest.raises(ConfigError) as raised:
        load_config(None, ["policy.precision=[exact]"])
    assert "did you mean" not in str(raised.value)


def test_in_sections_that_are_free_any_name_may_be_added():
    with pytest.raises(ConfigError) as raised:
        load_config(None, ["policy.model_name=m", "data.train_data_path=d.jsonl", "policy.optimizer.kwargs.rank=8"])
    assert str(raised.value).endswith("write ++policy.optimizer.kwargs.rank=8 to add it")


def test_names_of_other_trainers_are_no_keys_of_the_section_that_is_named():
    known = set(known_keys())
    names = dict(names_elsewhere())
    assert len(names) > 10
    for key, others in names.items():
        section = key.rpartition(".")[0]
        assert not {f"{section}.{other}" for other in others} & known
