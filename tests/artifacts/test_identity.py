"""Equal options and inputs give equal digests; a difference is named."""

from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.artifacts.identity import Identity, digest

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_TEXTS = st.dictionaries(st.text(min_size=1), st.text(), max_size=4)


def _identity(**changes):
    fields = {"options": {"lr": 1e-3, "steps": 10}, "inputs": {"/data": "file:1:2"}}
    return Identity.of(**(fields | changes))


@given(st.dictionaries(st.text(), _VALUES, max_size=5))
def test_the_order_of_keys_does_not_matter(value):
    assert digest(value) == digest(dict(reversed(value.items())))


@given(_TEXTS, _TEXTS)
def test_changes_are_empty_exactly_when_the_digests_are_equal(one, other):
    first, second = _identity(inputs=one), _identity(inputs=other)
    assert (first.digest == second.digest) == (first.changes(second) == []) == (one == other)


def test_each_change_is_one_line_with_the_old_and_the_new_value():
    now = _identity(options={"lr": 1e-3, "steps": 20, "seed": 1}, inputs={})
    assert _identity().changes(now) == [
        "options.seed: (not set) -> 1",
        "options.steps: 10 -> 20",
        'inputs./data: "file:1:2" -> (not set)',
    ]


def test_an_identity_survives_its_file():
    assert Identity.from_json(_identity().to_json()) == _identity()


def test_an_option_and_an_input_of_the_same_name_are_not_the_same():
    assert _identity(options={"x": "1"}, inputs={}).digest != _identity(options={}, inputs={"x": "1"}).digest
