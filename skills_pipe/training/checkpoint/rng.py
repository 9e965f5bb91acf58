"""Random number generators of a process: python, numpy, torch on CPU and on its GPU."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

_STEP = 0x9E3779B1
"""Between the seeds of neighbouring ranks; large, so that seeds which users try in turn share no numbers."""


def state() -> dict[str, Any]:
    """The state of every generator of this process."""
    name, keys, *rest = np.random.get_state()
    found: dict[str, Any] = {
        "python": random.getstate(),
        # As plain values: the file is read back with weights_only=True, which runs no code.
        "numpy": (str(name), torch.from_numpy(keys.astype(np.int64)), *(float(value) for value in rest)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state()
    return found


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write what :func:`state` gave."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), path)


def load(path: Path) -> None:
    """Put every generator into the state that :func:`save` wrote; a GPU's only where there is one."""
    restore(torch.load(path, map_location="cpu", weights_only=True))


def restore(state: Mapping[str, Any]) -> None:
    """Put every generator into a state that :func:`state` gave."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), int(position), int(has_gauss), cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def reseed(seed: int, *, rank: int = 0) -> None:
    """Start every generator of this process from ``seed``, with numbers of its own on every rank.

    torch's generator for CPUs looks at the low 32 bits of a seed only; the odd step keeps these apart for all ranks.
    """
    own = seed + rank * _STEP
    random.seed(own)
    np.random.seed(own % 2**32)
    torch.manual_seed(own)
