"""The options of ``ns nemo_rl sft``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from skills_pipe.artifacts.names import FINAL_HF_MODEL
from skills_pipe.pipeline.commands.conversion import LAST, read_step, read_steps
from skills_pipe.pipeline.commands.profiling import Profiler, read_step_range
from skills_pipe.pipeline.options.declaration import option, switch
from skills_pipe.pipeline.options.groups import EXPNAME_HELP, JobOptions

WANDB_PROJECT = "nemo-skills"
"""Project on Weights & Biases of runs on Slurm that name none."""


class Backend(str, Enum):
    """Which library trains."""

    FSDP = "fsdp"
    """torch FSDP2; any supported Hugging Face model."""
    MEGATRON = "megatron"
    """megatron-core; fewer models, more kinds of parallelism."""


@dataclass(frozen=True, kw_only=True)
class SftOptions(JobOptions):
    """Training."""

    output_dir: str = option(metavar="PATH", help="folder for checkpoints, logs and the final model")
    hf_model: str = option(metavar="PATH|ID", help="base model: a folder, or an id on the Hugging Face hub")
    training_data: str | None = option(
        None,
        metavar="PATH|ID|NAME",
        help="rows with input and output, or messages; or a data set on the Hugging Face hub, by its id or name "
        "(squad, OpenAssistant, ...); required to train",
    )
    validation_data: str | None = option(None, metavar="PATH|ID|NAME", help="data for validation, in the same form")
    num_gpus: int | None = option(
        None,
        help="GPUs on each node; required on Slurm. On this machine 0, the default, trains in one CPU process, "
        "and where there is no GPU, N means N CPU processes",
    )
    num_nodes: int = option(1, help="nodes of each training job")
    num_training_jobs: int = option(
        1, help="jobs in a row, each of which goes on where the one before had to stop; 0 only converts"
    )
    backend: Backend = option(Backend.FSDP, help="library that trains")
    expname: str = option("sft", help=EXPNAME_HELP)
    final_hf_path: str | None = option(
        None, metavar="PATH", help=f"folder for the final model; by default {FINAL_HF_MODEL} in output_dir"
    )
    conversion_step: str = option(
        LAST,
        parse=read_step,
        metavar="N|last|best",
        help="checkpoint to make the final model of; best: by checkpointing.metric_name",
    )
    average_steps: tuple[int, ...] = option(
        (), parse=read_steps, metavar="N,N,...", help="checkpoints to average into the final model"
    )
    remove_checkpoints_after_average: bool = switch(
        help="delete the models of the averaged steps afterwards; the checkpoints stay"
    )
    wandb_project: str | None = option(
        None,
        metavar="NAME",
        help=f"project on Weights & Biases; on Slurm {WANDB_PROJECT} by default. "
        "On this machine nothing is sent there unless a project is named",
    )
    wandb_group: str | None = option(None, metavar="NAME", help="group of runs on Weights & Biases")
    disable_wandb: bool = switch(help="send nothing to Weights & Biases")
    profile_step_range: str | None = option(
        None, parse=read_step_range, metavar="FIRST:END", help="steps to profile, from 1 on and without END: 3:5"
    )
    profiler: Profiler = option(Profiler.TORCH, help="program that profiles them")
    exclusive: bool = switch(
        True, on=("--exclusive",), off=("--not_exclusive",), help="share the nodes of training with other jobs"
    )

    @property
    def needed_steps(self) -> tuple[int, ...]:
        """Steps whose checkpoints the conversion reads, besides the last one."""
        if self.conversion_step.isdecimal():
            return (int(self.conversion_step),)
        return self.average_steps
