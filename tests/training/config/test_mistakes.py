"""Whatever is written, the answer is a configuration or errors for people; never a bug's traceback."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import ConfigErrors, TrainingConfig, load_config
from skills_pipe.training.config.read import known_keys

NEEDED = ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"]

SCALARS = ["null", "None", "true", "0", "-1", "7", "1e9", "1e-5", "nan", "word", "''", "val:x", "'00:01:00:00'", "???"]
CONTAINERS = ["[]", "[1,x]", "{}", "{a:1}", "[{name:a}]", "[{milestones:[1]}]"]
REFERENCES_AND_WORSE = ["${policy.lr}", "${nowhere}", "${mul:a,b}", "${div:1,0}", "a,b", "[["]
VALUES = st.sampled_from(SCALARS + CONTAINERS + REFERENCES_AND_WORSE)
SIGNS = st.sampled_from(["", "+", "++"])
CHANGES = st.builds("{}{}={}".format, SIGNS, st.sampled_from(known_keys()), VALUES)
REMOVALS = st.builds("~{}".format, st.sampled_from(known_keys()))
ADDITIONS = st.builds("++{}.{}={}".format, st.sampled_from(known_keys()), st.sampled_from(["x", "name", "0"]), VALUES)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(CHANGES, REMOVALS, ADDITIONS), min_size=1, max_size=3, unique=True))
def test_any_override_gives_a_configuration_or_errors(overrides):
    try:
        config = load_config(None, [*NEEDED, *overrides])
    except ConfigError as error:
        problems = error.problems if isinstance(error, ConfigErrors) else (error,)
        assert problems
        assert all("\n" not in str(problem) for problem in problems)
        assert len({str(problem) for problem in problems}) == len(problems)
    else:
        assert isinstance(config, TrainingConfig)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.text("ab.$", max_size=3)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=2),
            st.dictionaries(
                st.sampled_from([key.split(".")[-1] for key in known_keys()] + ["x", "a.b"]), inner, max_size=3
            ),
        ),
        max_leaves=8,
    )
)
def test_any_file_gives_a_configuration_or_errors(tmp_path_factory, tree):
    import yaml

    path = tmp_path_factory.mktemp("config") / "any.yaml"
    path.write_text(yaml.safe_dump(tree))
    try:
        assert isinstance(load_config(path, NEEDED), TrainingConfig)
    except ConfigError as error:
        assert str(error)
