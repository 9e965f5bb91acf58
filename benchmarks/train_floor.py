"""How fast training could be if it were nothing but its matrix products: what ``train.py`` measures beside it.

::

    python benchmarks/train_floor.py                            # all models and precisions, both counts of processes

A row of 1,024 tokens through every linear layer, forward and backward, as the loss sees it: the output layer for the
supervised share of the tokens only. No attention, norms, activations, optimizer, data or communication: no program
that computes these products by the same library can be faster. With two processes each has half of the threads, as
in ``train.py``, and both run at once.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import time
from multiprocessing.synchronize import Barrier

import torch
from train_inputs import LIMIT, SIZES, VOCABULARY

_barrier: Barrier
"""Where the processes wait for each other before they measure."""

SUPERVISED = 0.66
"""Share of the tokens of these chats that the assistant says."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(SIZES), choices=SIZES)
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print("| model | precision | processes | tokens/s at most | GFLOP/s |\n| --- | --- | ---: | ---: | ---: |")
    for model, precision, processes in itertools.product(given.models, given.precisions, given.processes):
        context = multiprocessing.get_context("spawn")
        with context.Pool(processes, initializer=_meet_at, initargs=(context.Barrier(processes),)) as pool:
            rates = sum(pool.map(_rate, [(model, precision, processes, given.rounds)] * processes, chunksize=1))
        flops = 6 * sum(tokens * inputs * outputs for tokens, inputs, outputs in _products(model)) / LIMIT
        print(f"| {model} | {precision} | {processes} | {rates:,.0f} | {rates * flops / 1e9:,.0f} |", flush=True)


def _meet_at(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _products(model: str) -> list[tuple[int, int, int]]:
    """Tokens, inputs and outputs of every linear layer."""
    size = SIZES[model]
    hidden, inner = int(size["hidden_size"]), int(size["intermediate_size"])
    # Two heads share keys and values.
    layer = [(hidden, hidden), (hidden, hidden // 2)] * 2 + [(hidden, inner)] * 2 + [(inner, hidden)]
    inside = [(LIMIT, inputs, outputs) for inputs, outputs in layer * int(size["num_hidden_layers"])]
    return [*inside, (round(SUPERVISED * LIMIT), hidden, VOCABULARY)]


def _rate(wanted: tuple[str, str, int, int]) -> float:
    """Tokens per second of one process, median over rounds."""
    model, precision, processes, rounds = wanted
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    dtype = getattr(torch, precision)
    layers = [
        (torch.randn(tokens, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype))
        for tokens, inputs, outputs in _products(model)
    ]
    seconds = []
    _barrier.wait()
    for _ in range(rounds + 1):
        began = time.monotonic()
        for values, weight in layers:
            gradient = torch.nn.functional.linear(values, weight)
            gradient @ weight
            gradient.T @ values
        seconds.append(time.monotonic() - began)
    return LIMIT / statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
