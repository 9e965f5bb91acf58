"""``ns``, and the same commands as Python functions.

from skills_pipe.pipeline.cli import wrap_arguments, sft_nemo_rl, eval

sft_nemo_rl(ctx=wrap_arguments("++sft.max_num_steps=100"), output_dir="/runs/a", hf_model="org/model", ...)
eval(ctx=wrap_arguments(""), model="/runs/a/final_hf_model", benchmarks="gsm8k", run_after="sft", ...)
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from typing import Any

from skills_pipe import __version__
from skills_pipe.errors import JobFailed, OptionError, UserError, did_you_mean
from skills_pipe.pipeline.argv import Arguments, sort_words, wrap_arguments
from skills_pipe.pipeline.options import Option
from skills_pipe.pipeline.registry import ENTRIES, GROUPS, Entry, entry

__all__ = [
    "Arguments",
    "PythonCommand",
    "cancel",
    "convert",
    "eval",
    "logs",
    "main",
    "prepare_data",
    "run_cmd",
    "sft_nemo_rl",
    "status",
    "wrap_arguments",
]

_COMPLETION = ("--install-completion", "--show-completion")


class PythonCommand:
    """A command as a function: keywords are the options, ``ctx`` holds words for the inner program.

    Raises:
        UserError: what the terminal shows as one line.
        JobFailed: a job that ran on this machine ended badly.
    """

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self.__name__ = entry.function
        self.__doc__ = entry.help

    def __call__(self, ctx: Arguments | None = None, **keywords: Any) -> Any:
        """Run the command; one that submits jobs returns the submission, which ``run_after`` accepts."""
        return self._entry.load().call(ctx.args if ctx else (), keywords)

    def __repr__(self) -> str:
        return f"<ns {self._entry.name}>"

    @property
    def __signature__(self) -> inspect.Signature:
        context = inspect.Parameter(
            "ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Arguments | None
        )
        return inspect.Signature([context, *(_keyword(option) for option in self._entry.load().all_options)])


sft_nemo_rl = PythonCommand(entry("nemo_rl sft"))
convert = PythonCommand(entry("convert"))
eval = PythonCommand(entry("eval"))
run_cmd = PythonCommand(entry("run_cmd"))
prepare_data = PythonCommand(entry("prepare_data"))
status = PythonCommand(entry("status"))
logs = PythonCommand(entry("logs"))
cancel = PythonCommand(entry("cancel"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ns``: 0 when all went well, 1 when a job failed, 2 for a mistake in what the user gave."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except UserError as error:
        _complain(str(error))
        return error.exit_code
    except JobFailed as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(words: list[str]) -> int:
    if "_NS_COMPLETE" in os.environ or words[:1] in [[flag] for flag in _COMPLETION]:
        from skills_pipe.pipeline.completion import complete

        complete()
        return 0
    if words == ["--version"]:
        print(__version__)
        return 0
    found = _find(words)
    if found is None:
        return _outside_commands(words)
    command = found.load()
    rest = words[len(found.name.split()) :]
    if sort_words(rest, command.all_options, takes_extras=command.takes_extras).wants_help:
        _show_help(found.name.split())
        return 0
    result = command.call(rest, {})
    return result if isinstance(result, int) else 0


def _find(words: list[str]) -> Entry | None:
    return next((entry for entry in ENTRIES if words[: len(entry.name.split())] == entry.name.split()), None)


def _outside_commands(words: list[str]) -> int:
    """Help for ``ns`` itself and for groups; anything else is a mistake."""
    group = words[:1] if words[:1] and words[0] in GROUPS else []
    rest = words[len(group) :]
    if not rest or rest[0] in ("--help", "-h"):
        _show_help(group)
        return 0
    prefix = f"{group[0]} " if group else ""
    known = [entry.name.removeprefix(prefix) for entry in ENTRIES if entry.name.startswith(prefix)]
    if rest[0].startswith("-"):
        raise OptionError(
            f"there is no option {rest[0].partition('=')[0]} before the command", fix="write options behind it"
        )
    advice = did_you_mean(rest[0], [*known, *(() if group else GROUPS)])
    raise OptionError(f"there is no command {prefix + rest[0]!r}", fix=advice or "`ns --help` lists all of them")


def _show_help(words: list[str]) -> None:
    from skills_pipe.pipeline.help import show_help

    show_help(words)


def _keyword(option: Option) -> inspect.Parameter:
    default = inspect.Parameter.empty if option.required else option.default
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=option.annotation)


def _complain(text: str) -> None:
    color = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    for line in text.splitlines():
        shown = f"error: {line}"
        print(f"\033[31m{shown}\033[0m" if color else shown, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
