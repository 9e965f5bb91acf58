"""A real training on Slurm: sixty steps of a two-layer model in two processes, then its export."""

from __future__ import annotations

from pathlib import Path

from skills_pipe.artifacts.names import MANIFEST, parse_step
from skills_pipe.pipeline.cli import sft_nemo_rl, wrap_arguments
from skills_pipe.pipeline.submit import Submission
from tests.pipeline.programs import until
from tests.training.tiny import chat_rows, save_tiny_model, write_jsonl

STEPS = 60
RANKS = 2


def prepare(folder: Path) -> None:
    """Make the model with dropout and the data."""
    save_tiny_model(folder / "base", attention_dropout=0.1)
    write_jsonl(folder / "chats.jsonl", chat_rows(64))


def train(folder: Path, name: str, *, jobs: int, every: int = 5, output: Path | None = None) -> Submission:
    """Queue a training with its conversion.

    Args:
        every: steps from one checkpoint to the next.
        output: by default ``folder/name``.
    """
    keys = (
        f"++sft.max_num_steps={STEPS} ++checkpointing.save_period={every} ++policy.train_global_batch_size=8 "
        "++policy.max_total_sequence_length=160 ++policy.lr=1e-3 ++policy.precision=float32"
    )
    submission = sft_nemo_rl(
        ctx=wrap_arguments(keys),
        cluster={
            "executor": "slurm",
            "job_dir": f"{folder}/jobs",
            "partition": "batch",
            "cpu_partition": "cpu",
            "default_timeout": "10:00",
            "env_vars": ["OMP_NUM_THREADS=1"],
        },
        expname=name,
        output_dir=str(output or folder / name),
        hf_model=str(folder / "base"),
        training_data=str(folder / "chats.jsonl"),
        num_gpus=RANKS,
        num_training_jobs=jobs,
        disable_wandb=True,
    )
    if not isinstance(submission, Submission):
        raise TypeError("not submitted")
    return submission


def last_step(output: Path) -> int:
    """The newest whole checkpoint, -1 before the first."""
    found = [parse_step(manifest.parent.name) for manifest in output.glob(f"checkpoints/step_*/{MANIFEST}")]
    return max((step for step in found if step is not None), default=-1)


def reaches(output: Path, step: int) -> None:
    """Wait for a checkpoint of this step, or of a later one."""
    until(lambda: last_step(output) >= step, f"a checkpoint of step {step}", at_most=120)


def weights(output: Path) -> dict[str, bytes]:
    """The files of the exported model that hold what was learned."""
    return {path.name: path.read_bytes() for path in sorted((output / "final_hf_model").glob("*.safetensors"))}
