"""One declaration per option: the terminal and Python give the same values, with the same checks."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.console.argv import wrap_arguments
from skills_pipe.pipeline.console.command import Command
from skills_pipe.pipeline.options.declaration import Kind, argument, build, option, options_of, switch


class Color(str, Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Shared by several."""

    verbose: bool = switch(help="talk")
    name: str = option("shared", help="name")


@dataclass(frozen=True, kw_only=True)
class Example(Shared):
    """Own ones."""

    path: str = option(help="where")
    count: int = option(3, help="how many")
    ratio: float | None = option(None, help="how much")
    color: Color = option(Color.RED, help="which")
    items: tuple[int, ...] = option((), separator=",", help="some")
    whole: bool = switch(True, off=("--not_whole",), help="all of it")
    name: str = option("own", help="name")
    place: str | None = option(None, env="EXAMPLE_PLACE", help="from the environment")
    words: tuple[str, ...] = argument((), help="words")


COMMAND = Command(options=Example, run=lambda options, extras: (options, extras), takes_extras=True)


def from_terminal(*words: str) -> Example:
    return COMMAND.call(words, {})[0]


def from_python(**keywords: object) -> Example:
    return COMMAND.call((), keywords)[0]


def test_own_options_come_first_and_override_those_of_groups():
    options = options_of(Example)
    assert [option.name for option in options][:2] == ["path", "count"]
    assert [option.name for option in options if option.panel == "Shared by several"] == ["verbose"]
    assert {option.name: option.default for option in options}["name"] == "own"


def test_the_kinds_of_options():
    kinds = {option.name: option.kind for option in options_of(Example)}
    assert (kinds["path"], kinds["whole"], kinds["words"]) == (Kind.VALUE, Kind.SWITCH, Kind.ARGUMENT)


@pytest.mark.parametrize(
    ("words", "keywords"),
    [
        (["--count=5"], {"count": 5}),
        (["--count", "5"], {"count": "5"}),
        (["--ratio=0.5"], {"ratio": 0.5}),
        (["--ratio=1"], {"ratio": 1}),
        (["--color=blue"], {"color": "blue"}),
        (["--color=blue"], {"color": Color.BLUE}),
        (["--items=1, 2,3"], {"items": [1, 2, 3]}),
        (["--items=1", "--items=2,3"], {"items": "1,2,3"}),
        (["--verbose"], {"verbose": True}),
        (["--not_whole"], {"whole": False}),
        (["a", "b"], {"words": ["a", "b"]}),
        (["--path=x"], {"path": Path("x")}),
        ([], {"ratio": None}),
    ],
)
def test_terminal_and_python_agree(words, keywords):
    assert from_terminal(*([] if "path" in keywords else ["--path=x"]), *words) == from_python(
        **{"path": "x", **keywords}
    )


@pytest.mark.parametrize(
    ("words", "keywords", "told"),
    [
        (["--count=many"], {"count": "many"}, "'many' is not a whole number (--count)"),
        (["--count=1.5"], {"count": "1.5"}, "is not a whole number"),
        (["--ratio=half"], {"ratio": "half"}, "is not a number"),
        (["--color=blu"], {"color": "blu"}, "did you mean 'blue'"),
        (["--items=1,x"], {"items": "1,x"}, "'x' is not a whole number (--items)"),
    ],
)
def test_wrong_values_are_refused_the_same_way(words, keywords, told):
    for call in (lambda: from_terminal("--path=x", *words), lambda: from_python(path="x", **keywords)):
        with pytest.raises(OptionError) as caught:
            call()
        assert told in str(caught.value)


def test_values_that_only_python_can_give_are_checked_too():
    for keywords in ({"count": True}, {"count": 1.5}, {"path": None}, {"path": ["x"]}, {"verbose": "perhaps"}):
        with pytest.raises(OptionError):
            from_python(**{"path": "x", **keywords})


def test_all_missing_options_are_told_at_once():
    @dataclass(frozen=True, kw_only=True)
    class Two:
        """Two."""

        first: str = option(help="first")
        second: int = option(help="second")

    with pytest.raises(OptionError, match="--first, --second are missing"):
        build(Two, {})


def test_all_problems_are_told_at_once():
    with pytest.raises(OptionError) as caught:
        from_python(count="many", colour="red")
    for part in ("there is no option 'colour': did you mean 'color'?", "'many'", "--path is missing"):
        assert part in str(caught.value)


def test_the_environment_gives_what_the_option_does_not(monkeypatch):
    monkeypatch.setenv("EXAMPLE_PLACE", "there")
    assert from_python(path="x").place == "there"
    assert from_python(path="x", place="here").place == "here"
    monkeypatch.delenv("EXAMPLE_PLACE")
    assert from_python(path="x").place is None


def test_python_can_pass_words_of_a_command_line():
    options, extras = COMMAND.call(wrap_arguments("--path=x one '++a=b c'").args, {"count": 4})
    assert (options.path, options.words, options.count, extras) == ("x", ("one",), 4, ("++a=b c",))


def test_an_option_given_in_both_ways_is_refused():
    with pytest.raises(OptionError, match="path is given both as a keyword and in the arguments"):
        COMMAND.call(("--path=x",), {"path": "y"})
