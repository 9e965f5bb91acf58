"""All commands of ``ns`` by name; a command is imported when it is used."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skills_pipe.pipeline.console.command import Command


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A command that can be called.

    Attributes:
        name: what is typed behind ``ns``: ``nemo_rl sft``.
        module: its module in :mod:`skills_pipe.pipeline.commands`, which defines ``COMMAND``.
        function: name of the Python function.
        help: one or two sentences for the help.
    """

    name: str
    module: str
    function: str
    help: str

    def load(self) -> Command:
        """The command itself."""
        module = importlib.import_module(f"skills_pipe.pipeline.commands.{self.module}")
        command: Command = module.COMMAND
        return command


GROUPS = {"data": "Look at training data before training.", "nemo_rl": "Train models."}
"""Words in front of several commands, and what these have in common."""

ENTRIES = (
    Entry(
        name="prepare_data",
        module="prepare_data",
        function="prepare_data",
        help="Fetch the data of benchmarks (ns prepare_data gsm8k), or make training data of generations "
        "(ns prepare_data ++input_files=... ++output_path=...).",
    ),
    Entry(
        name="data preview",
        module="data_preview",
        function="data_preview",
        help="Show what is trained of some rows, token by token: ns data preview rows.jsonl --hf_model=... "
        "Keys of the trainer are given as ++key=value.",
    ),
    Entry(
        name="data doctor",
        module="data_doctor",
        function="data_doctor",
        help="Examine training data: bad rows, lengths, duplicates, leakage, packing, steps. "
        "It ends with 1 where a finding is an error.",
    ),
    Entry(
        name="nemo_rl sft",
        module="sft",
        function="sft_nemo_rl",
        help="Fine-tune a model in a chain of jobs, then make a Hugging Face model of its checkpoints. "
        "Keys of the trainer are given as ++key=value.",
    ),
    Entry(
        name="convert",
        module="convert",
        function="convert",
        help="Make a Hugging Face model of the checkpoints of a training run.",
    ),
    Entry(
        name="eval",
        module="eval",
        function="eval",
        help="Evaluate a model on benchmarks, one job each. Keys of the evaluation are given as ++key=value.",
    ),
    Entry(
        name="run_cmd",
        module="run_cmd",
        function="run_cmd",
        help="Run any command as a job: everything from its first word on is passed to it.",
    ),
    Entry(
        name="setup",
        module="setup",
        function="setup",
        help="Write a cluster configuration, by questions or all by flags, and try it out.",
    ),
    Entry(
        name="check",
        module="check",
        function="check",
        help="Check a command and submit nothing: ns check nemo_rl sft ...; or a cluster configuration alone.",
    ),
    Entry(
        name="start_server",
        module="start_server",
        function="start_server",
        help="Serve a model in a job of its own, until `ns cancel`; `ns logs` tells its address.",
    ),
    Entry(name="status", module="status", function="status", help="Show the jobs of a run, or the newest runs."),
    Entry(name="logs", module="logs", function="logs", help="Show the logs of a run; with -f as they grow."),
    Entry(
        name="resume",
        module="resume",
        function="resume",
        help="Submit the plan of an earlier run again: what is finished is skipped, the rest goes on.",
    ),
    Entry(
        name="show",
        module="show",
        function="show",
        help="Show what a run was made of: its command, plan, scripts, configuration and lineage.",
    ),
    Entry(name="cancel", module="cancel", function="cancel", help="Stop the jobs of a run, a whole chain at once."),
    Entry(
        name="gc",
        module="gc",
        function="gc",
        help="Remove code that no run uses any more, and the secrets of runs that are over.",
    ),
)


def entry(name: str) -> Entry:
    """The command of this name."""
    return next(entry for entry in ENTRIES if entry.name == name)
