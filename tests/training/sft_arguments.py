"""A short real training: ten steps of a two-layer model on 64 chats."""

from __future__ import annotations

from pathlib import Path

STEPS = 10
BATCH = 8


def arguments(model: Path, data: Path, output: Path, *extra: str, validation: Path | None = None) -> list[str]:
    """Arguments of ``skills_pipe.training.sft``; what is extra wins."""
    return [
        f"policy.model_name={model}",
        f"data.train_data_path={data}",
        f"data.val_data_path={validation or 'null'}",
        f"policy.train_global_batch_size={BATCH}",
        "policy.max_total_sequence_length=160",
        "policy.lr=1e-3",
        f"sft.max_num_steps={STEPS}",
        "checkpointing.save_period=5",
        f"checkpointing.checkpoint_dir={output}/checkpoints",
        f"logger.log_dir={output}/training-logs",
        "logger.tensorboard_enabled=false",
        *extra,
    ]
