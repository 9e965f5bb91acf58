"""Tasks shared out over processes, their chunks in the order of the tasks."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Final, cast

from skills_pipe.errors import DataError
from skills_pipe.training.data.chunk import ChunkEncoder, EncodedChunk, Recipe
from skills_pipe.training.data.workers.task import Task

_HERE: Final = 8
"""So few tasks are done before other processes would be ready."""

_PROGRAM: Final = (sys.executable, "-m", "skills_pipe.training.data.workers.worker")


def encode_in_order(recipe: Callable[[], Recipe], tasks: Iterable[Task], *, workers: int) -> Iterator[EncodedChunk]:
    """The chunks of ``tasks``, in their order; at most two tasks per process are under way.

    Args:
        recipe: says how rows become documents; called once, while the processes start.
        tasks: what to encode.
        workers: processes; 0 or 1 stays in this process.

    Raises:
        DataError: the data are refused, or a process was killed.
    """
    tasks = iter(tasks)
    if workers <= 1:
        here = ChunkEncoder(recipe())
        yield from (here.encode(task.rows(), compare=not number) for number, task in enumerate(tasks))
        return
    first = list(islice(tasks, _HERE))
    if (more := next(tasks, None)) is None:
        here = ChunkEncoder(recipe())
        yield from (here.encode(task.rows(), compare=not number) for number, task in enumerate(first))
        return
    started = [_Worker() for _ in range(workers)]
    try:
        settled = recipe()
    except BaseException:
        for worker in started:
            worker.end()
        raise
    with closing(_shared_out(settled, chain((more,), tasks), started)) as others:
        next(others)
        here = ChunkEncoder(settled)
        yield from (here.encode(task.rows(), compare=not number) for number, task in enumerate(first))
        yield from others


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _shared_out(
    recipe: Recipe, tasks: Iterable[Task], started: Sequence[_Worker]
) -> Generator[EncodedChunk, None, None]:
    """Chunks by other processes. First an empty one: while the processes start there is time for other work."""
    free: SimpleQueue[_Worker] = SimpleQueue()
    # A thread per process waits for its answer; the work is done in the processes.
    threads = ThreadPoolExecutor(len(started))
    waiting: deque[Future[EncodedChunk]] = deque()

    def ask(task: Task) -> EncodedChunk:
        worker = free.get()
        try:
            return worker.encode(task)
        finally:
            free.put(worker)

    def start(worker: _Worker) -> None:
        try:
            worker.send(recipe)
        finally:
            # One that has ended says so when it is asked.
            free.put(worker)

    try:
        for worker in started:
            threads.submit(start, worker)
        yield EncodedChunk.empty()
        for task in tasks:
            waiting.append(threads.submit(ask, task))
            if len(waiting) > 2 * len(started):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for worker in started:
            worker.end()
        threads.shutdown()


class _Worker:
    """One process that tokenises."""

    def __init__(self) -> None:
        path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        # Each process uses one core; the tokenizer's own threads would only get in each other's way.
        environment = os.environ | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            _PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self._tasks = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)

    def send(self, message: Recipe | Task) -> None:
        """Hand over a message.

        Raises:
            DataError: the process has ended.
        """
        try:
            pickle.dump(message, self._tasks, protocol=pickle.HIGHEST_PROTOCOL)
            self._tasks.flush()
        except BrokenPipeError as error:
            raise self._ended() from error

    def encode(self, task: Task) -> EncodedChunk:
        """The chunk of a task.

        Raises:
            DataError: the data are refused, or the process has ended.
        """
        self.send(task)
        try:
            answer: Any = pickle.load(self._answers)
        except (EOFError, pickle.UnpicklingError) as error:
            raise self._ended() from error
        if isinstance(answer, DataError):
            raise answer
        return cast(EncodedChunk, answer)

    def end(self) -> None:
        """End the process; what it is doing is of no use any more."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        with suppress(BrokenPipeError):
            self._tasks.close()

    def _ended(self) -> DataError:
        code = self._process.wait()
        return DataError(
            f"a process that tokenises ended with {code}",
            where="data.num_workers",
            fix="look above for what it says; where nothing is said, memory ran out: use fewer processes",
        )
