"""Prints by how many bytes the memory of a process grows at most while a backend reads a model: ``SMALL LARGE KIND``.

A small model is read first: what grows then are imports and threads. KIND is ``nf4`` or ``bfloat16``.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.quantization import QuantizationSpec
from skills_pipe.training.distributed import World
from skills_pipe.training.models.load import open_model
from skills_pipe.training.models.spec import ModelSpec
from skills_pipe.training.monitoring.performance import process_peak

ADAPTERS = FsdpSettings(
    optimizer=ObjectConfig(name="torch.optim.AdamW", kwargs={}),
    adapters=AdapterSpec(dim=4, alpha=8),
    dtype=torch.bfloat16,
)
KINDS = {"bfloat16": ADAPTERS, "nf4": replace(ADAPTERS, quantization=QuantizationSpec(double=True))}


def opened(folder: str, settings: FsdpSettings) -> FsdpBackend:
    model, weights = open_model(ModelSpec(name=folder))
    return FsdpBackend(model, settings, World(rank=0, size=1, device=torch.device("cpu")), weights)


if __name__ == "__main__":
    small, large, kind = sys.argv[1:]
    first = opened(small, KINDS[kind])
    before = process_peak()
    second = opened(large, KINDS[kind])
    print(process_peak() - before)
