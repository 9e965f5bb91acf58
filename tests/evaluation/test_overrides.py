"""``++key=value`` to frozen dataclasses: Hydra's grammar in, typed values out, every mistake named."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from skills_pipe.errors import OptionError
from skills_pipe.evaluation.overrides import apply_overrides, parse_overrides


@dataclass(frozen=True)
class Inner:
    count: int = 1
    share: float = 0.5
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    name: str | None = None
    on: bool = False
    extra: Mapping[str, object] = field(default_factory=dict)


def set_keys(*tokens):
    return apply_overrides(Outer(), parse_overrides(tokens))


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("++inner.count=3", Outer(inner=Inner(count=3))),
        ("+inner.count=3", Outer(inner=Inner(count=3))),
        ("inner.count=3", Outer(inner=Inner(count=3))),
        ("++inner.share=1", Outer(inner=Inner(share=1.0))),
        ("++inner.share=1e-3", Outer(inner=Inner(share=0.001))),
        ("++inner.words=[a,'b c']", Outer(inner=Inner(words=("a", "b c")))),
        ("++inner.words=a", Outer(inner=Inner(words=("a",)))),
        ("++name='a b'", Outer(name="a b")),
        ("++name=5", Outer(name="5")),
        ("++name=null", Outer()),
        ("++on=true", Outer(on=True)),
        ("++extra={a: 1, b: [x]}", Outer(extra={"a": 1, "b": ["x"]})),
    ],
)
def test_a_value_has_the_type_of_its_field(token, expected):
    assert set_keys(token) == expected


def test_the_last_of_two_values_wins():
    assert set_keys("++inner.count=3", "++inner.count=4").inner.count == 4


def test_all_mistakes_are_told_at_once():
    with pytest.raises(OptionError) as caught:
        set_keys("++inner.cuont=3", "++on=5", "++inner.count=2.5", "++share=1")
    text = str(caught.value)
    assert "unknown key 'inner.cuont': did you mean 'inner.count'?" in text
    assert "on: 5 is no true or false" in text
    assert "inner.count: 2.5 is no whole number" in text
    assert "unknown key 'share': did you mean 'inner.share'?" in text


@pytest.mark.parametrize("token", ["~inner.count", "++inner.count=", "++inner.count=1,2", "++=3", "++a={"])
def test_what_sets_no_single_value_is_refused(token):
    with pytest.raises(OptionError):
        set_keys(token)
