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

import typer

from skills_pipe.artifacts.broken_pipe import until_reader_leaves
from skills_pipe.errors import JobFailed, UserError
from skills_pipe.pipeline.console.app import application
from skills_pipe.pipeline.console.argv import Arguments, wrap_arguments
from skills_pipe.pipeline.console.registry import Entry, entry
from skills_pipe.pipeline.options.declaration import Option

__all__ = [
    "Arguments",
    "PythonCommand",
    "cancel",
    "check",
    "convert",
    "data_doctor",
    "data_preview",
    "eval",
    "gc",
    "logs",
    "main",
    "prepare_data",
    "resume",
    "run_cmd",
    "setup",
    "sft_nemo_rl",
    "show",
    "start_server",
    "status",
    "wrap_arguments",
]


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
start_server = PythonCommand(entry("start_server"))
prepare_data = PythonCommand(entry("prepare_data"))
data_preview = PythonCommand(entry("data preview"))
data_doctor = PythonCommand(entry("data doctor"))
setup = PythonCommand(entry("setup"))
check = PythonCommand(entry("check"))
status = PythonCommand(entry("status"))
resume = PythonCommand(entry("resume"))
show = PythonCommand(entry("show"))
logs = PythonCommand(entry("logs"))
cancel = PythonCommand(entry("cancel"))
gc = PythonCommand(entry("gc"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ns``: 0 when all went well, 1 when a job failed, 2 for a mistake in what the user gave."""
    words = list(sys.argv[1:] if argv is None else argv)
    return until_reader_leaves(lambda: _run(words))


def _run(words: list[str]) -> int:
    try:
        result = application().main(words, prog_name="ns", standalone_mode=False)
    except (UserError, JobFailed, typer.TyperException) as error:
        _complain(str(error))
        return error.exit_code
    return result if isinstance(result, int) else 0


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
