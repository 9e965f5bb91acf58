"""Grading in processes of their own, so that no expression can hang or kill the evaluation."""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from skills_pipe.evaluation.grading.math import Comparison, math_equal, quick_verdict

_CONTEXT = multiprocessing.get_context("spawn")
"""Never fork: the parent may hold threads and an accelerator."""

_GRACE = 20.0
"""Seconds beyond the timeout of a comparison until its process is killed: parsing has a limit of its own."""

_START_UP = 60.0
"""Seconds that a new process may take until it is ready."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An expected answer and a predicted one, None where the text had none."""

    expected: Any
    predicted: Any


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether the answers are equal; ``failure`` says why no comparison came to an end, which counts as unequal."""

    equal: bool
    failure: str | None = None


class GradingPool:
    """Compares pairs of answers in up to ``workers`` processes, which start when the first hard pair comes."""

    def __init__(self, comparison: Comparison, *, workers: int) -> None:
        self._comparison = comparison
        self._workers = workers
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}

    def __enter__(self) -> GradingPool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self._idle, *self._busy.values()]:
            worker.kill()

    def grade(self, pairs: Iterable[Pair]) -> Iterator[Verdict]:
        """Verdicts in the order of the pairs; reads at most a few pairs ahead."""
        done: dict[int, Verdict] = {}
        next_out = 0
        for index, pair in enumerate(pairs):
            quick = quick_verdict(pair.expected, pair.predicted, self._comparison)
            if quick is not None:
                done[index] = Verdict(equal=quick)
            else:
                while len(self._busy) >= self._workers:
                    done.update(self._collect())
                self._start(index, pair)
            while next_out in done:
                yield done.pop(next_out)
                next_out += 1
        while self._busy:
            done.update(self._collect())
            while next_out in done:
                yield done.pop(next_out)
                next_out += 1

    def _start(self, index: int, pair: Pair) -> None:
        worker = self._idle.pop() if self._idle else _Worker(self._comparison)
        worker.send(pair)
        self._busy[index] = worker

    def _collect(self) -> dict[int, Verdict]:
        """Wait until at least one comparison is over, by its end or by its deadline."""
        deadline = min(worker.deadline for worker in self._busy.values())
        ready = wait([worker.connection for worker in self._busy.values()], max(0.0, deadline - time.monotonic()))
        finished: dict[int, Verdict] = {}
        for index, worker in list(self._busy.items()):
            if worker.connection in ready:
                finished[index] = self._receive(worker)
            elif worker.deadline <= time.monotonic():
                worker.kill()
                finished[index] = Verdict(equal=False, failure="timeout")
            else:
                continue
            del self._busy[index]
        return finished

    def _receive(self, worker: _Worker) -> Verdict:
        try:
            verdict = worker.receive()
        except EOFError:
            # The process died of the expression: out of memory, or a crash in a C library.
            worker.kill()
            return Verdict(equal=False, failure="the comparing process died")
        self._idle.append(worker)
        return verdict


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, comparison: Comparison) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs, comparison), daemon=True)
        self._process.start()
        theirs.close()
        self._allowance = comparison.timeout + _GRACE
        self.deadline = 0.0
        self._fresh = True

    def send(self, pair: Pair) -> None:
        self.connection.send(pair)
        self.deadline = time.monotonic() + self._allowance + (_START_UP if self._fresh else 0.0)
        self._fresh = False

    def receive(self) -> Verdict:
        verdict: Verdict = self.connection.recv()
        return verdict

    def kill(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _serve(connection: Connection, comparison: Comparison) -> None:
    """The life of a process: a pair in, a verdict out, until the parent is gone."""
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    while True:
        try:
            pair = connection.recv()
        except EOFError:
            return
        connection.send(_compare(pair, comparison))


def _compare(pair: Pair, comparison: Comparison) -> Verdict:
    try:
        return Verdict(equal=math_equal(pair.expected, pair.predicted, comparison))
    except Exception as error:
        # A model can write what no parser foresaw (a thousand nested brackets): this answer fails, not the run.
        return Verdict(equal=False, failure=f"{type(error).__name__}: {error}"[:200])
