"""Which keys of a configuration decide what a program makes."""

from __future__ import annotations

from typing import Final

NOT_OF_RESULT: Final = (
    "logger.",
    "cluster.",
    "data.num_workers",
    "data.use_tiktoken",
    "data.cache_dir",
    "data.force_reprocess",
    "checkpointing.stop_after_steps",
    "checkpointing.checkpoint_must_save_by",
    "inference.batch_size",
)
"""Beginnings of keys that change how a program runs or reports, not what it makes."""
