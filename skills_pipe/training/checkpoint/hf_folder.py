"""Putting a Hugging Face model folder in place: published by one rename, sealed, never over something else."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.atomic import publish_directory
from skills_pipe.errors import CheckpointError, UserError

KIND = "hf_model"
ADAPTER = "adapter"
"""Folder, in a model that adapters were merged into, of these adapters."""
LINEAGE = "lineage.json"
"""Where the weights come from: step, configuration, data, metrics."""


@contextlib.contextmanager
def publish_model(output: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``output``; an older model of ours at that place is replaced.

    Raises:
        CheckpointError: ``output`` holds something else.
    """
    if output.exists() and not _may_replace(output):
        raise CheckpointError(
            f"{output} exists and is no model that this program wrote", fix="choose another folder or remove it"
        )
    with publish_directory(output) as temporary:
        yield temporary


def run_main(program: Callable[[], None]) -> int:
    """Exit code of a program that streams weights: 0, or that of a user error after its line."""
    # Between a read and a write there is little to compute; more threads would only wait for each other.
    torch.set_num_threads(1)
    try:
        program()
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def size_in_bytes(text: str) -> int:
    """``5GB`` as a number of bytes (1 GB = 10^9, as in ``save_pretrained``), for argparse."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
    number, unit = text[:-2], text[-2:].upper()
    try:
        return round(float(number) * units[unit])
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write it as 500MB or 5GB") from None


def _may_replace(output: Path) -> bool:
    if not output.is_dir():
        return False
    manifest = manifests.read(output)
    return manifest.kind == KIND if manifest else (output / LINEAGE).is_file() or not any(output.iterdir())
