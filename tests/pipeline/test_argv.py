"""Which word of a command line goes where."""

import shlex
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.argv import Sorted, sort_words, wrap_arguments
from skills_pipe.pipeline.options import argument, option, options_of, switch

text = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",)))


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Plain."""

    num_gpus: int = option(0, help="GPUs")
    expname: str = option("x", help="name")
    run_after: tuple[str, ...] = option((), help="before")
    dry_run: bool = switch(help="show")
    reuse_code: bool = switch(True, on=("--reuse_code",), off=("--no-reuse_code",), help="code")
    follow: bool = switch(on=("-f", "--follow"), help="follow")


@dataclass(frozen=True, kw_only=True)
class Verbatim(Plain):
    """Verbatim."""

    command: tuple[str, ...] = argument((), verbatim=True, help="command")


def sort(*words: str, extras: bool = True) -> Sorted:
    return sort_words(words, options_of(Plain), takes_extras=extras)


def sort_verbatim(*words: str) -> Sorted:
    return sort_words(words, options_of(Verbatim), takes_extras=False)


def refusal(*words: str, extras: bool = True) -> str:
    with pytest.raises(OptionError) as caught:
        sort(*words, extras=extras)
    return str(caught.value)


def test_values_switches_and_lists():
    found = sort(
        "--num_gpus=8", "--expname", "a b", "--dry_run", "--no-reuse_code", "-f", "--run_after=a", "--run_after=b"
    )
    assert found.values == {
        "num_gpus": "8",
        "expname": "a b",
        "dry_run": True,
        "reuse_code": False,
        "follow": True,
        "run_after": ("a", "b"),
    }


def test_the_last_of_two_values_counts():
    assert sort("--expname=a", "--expname=b").values == {"expname": "b"}


def test_keys_of_the_inner_program_pass_in_their_order_whatever_stands_between():
    found = sort("++a.b=c d", "--num_gpus=1", "+e=f", "~g", "--", "--own-flag", "word")
    assert found.extras == ("++a.b=c d", "+e=f", "~g", "--own-flag", "word")


@given(text)
def test_any_text_passes_unchanged(value):
    assert sort(f"++key={value}").extras == (f"++key={value}",)
    assert sort("--", value).extras == (value,)
    assert sort(f"--expname={value}").values == {"expname": value}


@given(st.lists(text))
def test_wrapped_arguments_split_as_a_shell_would(words):
    assert wrap_arguments(shlex.join(words)).args == tuple(words)


def test_no_arguments_are_no_words():
    assert wrap_arguments("").args == ()


@given(text.filter(lambda word: not word.startswith(("-", "+", "~"))), st.lists(text))
def test_a_command_is_taken_verbatim_from_its_first_word_on(first, rest):
    if first:
        assert sort_verbatim("--num_gpus=1", first, *rest).values == {"num_gpus": "1", "command": (first, *rest)}


def test_a_command_may_follow_two_dashes():
    assert sort_verbatim("--", "-x", "--num_gpus=1").values == {"command": ("-x", "--num_gpus=1")}


def test_flags_of_a_command_are_its_own():
    found = sort_verbatim("python", "-m", "x", "--help", "--num_gpus=2", "++y=z")
    assert found.values == {"command": ("python", "-m", "x", "--help", "--num_gpus=2", "++y=z")}
    assert not found.wants_help


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--num_gpu=1", "there is no option --num_gpu: did you mean '--num_gpus'?"),
        ("--num-gpus=1", "there is no option --num-gpus: did you mean '--num_gpus'?"),
        ("--dryrun", "did you mean '--dry_run'?"),
        ("-x", "there is no option -x: --help lists all of them"),
        ("stray", "'stray' is one word too many"),
        ("--num_gpus", "--num_gpus needs a value: write --num_gpus=N"),
        ("--dry_run=true", "--dry_run takes no value"),
    ],
)
def test_what_has_no_place_is_refused(word, told):
    assert told in refusal(word)


def test_a_flag_is_never_taken_for_a_value():
    assert "--expname needs a value" in refusal("--expname", "--dry_run")


def test_all_problems_are_told_in_one_line():
    assert refusal("--foo", "stray").count("\n") == 0
    assert "--foo" in refusal("--foo", "stray")
    assert "stray" in refusal("--foo", "stray")


def test_a_command_without_an_inner_program_takes_no_keys():
    assert "'++a=b' has no meaning" in refusal("++a=b", extras=False)


def test_help_is_seen_even_beside_mistakes():
    assert sort("--foo", "--help").wants_help
