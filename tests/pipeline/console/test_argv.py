"""Which word of a command line goes where."""

import shlex
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.errors import OptionError
from skills_pipe.pipeline.console.argv import wrap_arguments
from skills_pipe.pipeline.console.command import Command
from skills_pipe.pipeline.options.declaration import argument, option, switch

surrogates = "".join(map(chr, range(0xDC80, 0xDD00)))  # how Python shows bytes of an argument that are not UTF-8
text = st.text(
    alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",), include_characters=surrogates)
)


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


@dataclass(frozen=True, kw_only=True)
class Named(Plain):
    """Named."""

    run: str = argument(help="run")
    stage: str | None = argument(None, help="stage")


def sort(*words: str, options: type = Plain, extras: bool = True) -> tuple[Any, tuple[str, ...]]:
    """The options that words give, and the words for the inner program."""
    return Command(options=options, run=lambda *found: found, takes_extras=extras).call(words, {})


def sort_verbatim(*words: str) -> Any:
    return sort(*words, options=Verbatim, extras=False)[0]


def refusal(*words: str, options: type = Plain, extras: bool = True) -> str:
    with pytest.raises(OptionError) as caught:
        sort(*words, options=options, extras=extras)
    return str(caught.value)


def test_values_switches_and_lists():
    found = sort(
        "--num_gpus=8", "--expname", "a b", "--dry_run", "--no-reuse_code", "-f", "--run_after=a", "--run_after=b"
    )
    expected = Plain(num_gpus=8, expname="a b", dry_run=True, reuse_code=False, follow=True, run_after=("a", "b"))
    assert found == (expected, ())


def test_what_is_not_given_keeps_its_default():
    assert sort() == (Plain(), ())
    assert sort("--expname=") == (Plain(expname=""), ())


def test_words_without_dashes_are_arguments_wherever_they_stand():
    assert sort("a", "--num_gpus", "1", "b", options=Named)[0] == Named(run="a", stage="b", num_gpus=1)


def test_the_last_of_two_values_counts():
    assert sort("--expname=a", "--expname=b")[0] == Plain(expname="b")
    assert sort("--reuse_code", "--no-reuse_code")[0] == Plain(reuse_code=False)
    assert sort("--no-reuse_code", "--reuse_code")[0] == Plain(reuse_code=True)


def test_keys_of_the_inner_program_pass_in_their_order_whatever_stands_between():
    found = sort("++a.b=c d", "--num_gpus=1", "+e=f", "~g", "--", "--own-flag", "word", "--help", "--", "-x")
    assert found == (Plain(num_gpus=1), ("++a.b=c d", "+e=f", "~g", "--own-flag", "word", "--help", "--", "-x"))


@given(text)
def test_any_text_passes_unchanged(value):
    assert sort(f"++key={value}") == (Plain(), (f"++key={value}",))
    assert sort("--", value) == (Plain(), (value,))
    assert sort(f"--expname={value}") == (Plain(expname=value), ())


@given(text.filter(lambda value: not value.startswith("--")))
def test_a_value_may_be_the_next_word(value):
    assert sort("--expname", value) == (Plain(expname=value), ())


@given(st.lists(text))
def test_wrapped_arguments_split_as_a_shell_would(words):
    assert wrap_arguments(shlex.join(words)).args == tuple(words)
    assert wrap_arguments(words).args == tuple(words)


def test_no_arguments_are_no_words():
    assert wrap_arguments("").args == ()


@given(text.filter(lambda word: not word.startswith(("-", "+", "~"))), st.lists(text))
def test_a_command_is_taken_verbatim_from_its_first_word_on(first, rest):
    assert sort_verbatim("--num_gpus=1", first, *rest) == Verbatim(num_gpus=1, command=(first, *rest))


def test_a_command_may_follow_two_dashes():
    assert sort_verbatim("--", "-x", "--num_gpus=1") == Verbatim(command=("-x", "--num_gpus=1"))


def test_flags_of_a_command_are_its_own():
    words = ("python", "-m", "x", "--help", "--num_gpus=2", "++y=z", "--", "-f")
    assert sort_verbatim("-f", *words) == Verbatim(follow=True, command=words)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--num_gpu=1", "there is no option --num_gpu: did you mean '--num_gpus'?"),
        ("--num-gpus=1", "there is no option --num-gpus: did you mean '--num_gpus'?"),
        ("--dryrun", "did you mean '--dry_run'?"),
        ("-x", "there is no option -x: --help lists all of them"),
        ("stray", "'stray' is one word too many: name options with --, keys of the program with ++"),
        ("num_gpus=2", "'num_gpus=2' is one word too many: did you mean --num_gpus=2?"),
        ("sft.seed=2", "'sft.seed=2' is one word too many: did you mean ++sft.seed=2?"),
        ("--num_gpus", "--num_gpus needs a value: write --num_gpus=N"),
        ("--dry_run=true", "--dry_run takes no value"),
    ],
)
def test_what_has_no_place_is_refused(word, told):
    assert told in refusal(word)


def test_a_flag_is_never_taken_for_a_value():
    assert "--expname needs a value" in refusal("--expname", "--dry_run")


def test_an_unknown_flag_is_never_taken_for_an_argument():
    told = refusal("--stge", "a", "b", options=Named)
    assert "there is no option --stge" in told
    assert "too many" not in told
    assert "there is no option --foo" in refusal("--foo", "python", options=Verbatim, extras=False)


def test_all_problems_are_told_in_one_line():
    told = refusal("--foo", "stray", "++a=b", "--dry_run=x", "--num_gpus", "--expname", extras=False)
    assert told.count("\n") == 0
    parts = ("no option --foo", "'stray' is", "'++a=b' has", "--dry_run takes", "--num_gpus needs", "--expname needs")
    assert [part for part in parts if part not in told] == []


def test_a_command_without_an_inner_program_takes_no_keys():
    assert "'++a=b' has no meaning: leave it out" in refusal("++a=b", extras=False)


def test_words_of_python_calls_ask_for_no_help():
    assert "there is no option --help" in refusal("--help")
