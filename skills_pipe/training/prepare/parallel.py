"""One function over many batches, in several processes, with the results in the order of the batches."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice

from skills_pipe.training.prepare.processor import Batch

Function = Callable[[Batch], Batch]

_SERIAL_BATCHES = 5
"""So few batches are done before other processes would be ready."""

_function: Function | None = None
"""What this process applies, when it is a worker."""


def map_in_order(function: Function, batches: Iterable[Batch], *, workers: int | None) -> Iterator[Batch]:
    """``function`` of each batch, in order; at most two batches per worker are under way.

    The function reaches the workers by fork, so that it may hold what cannot be sent to them.

    Args:
        function: gives a batch for a batch, and has no other effect.
        batches: what to apply it to.
        workers: processes; 1 stays in this process, None takes all cores.
    """
    batches = iter(batches)
    number = available_cores() if workers is None else workers
    first = list(islice(batches, _SERIAL_BATCHES + 1))
    if number == 1 or len(first) <= _SERIAL_BATCHES:
        yield from map(function, chain(first, batches))
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(number, mp_context=context, initializer=_become_worker, initargs=(function,)) as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for batch in chain(first, batches):
                waiting.append(pool.submit(_apply, batch))
                if len(waiting) > 2 * number:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _become_worker(function: Function) -> None:
    global _function
    _function = function
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _apply(batch: Batch) -> Batch:
    if _function is None:
        raise RuntimeError("this process is no worker")
    return _function(batch)
