"""Batches are worked on by several processes, and come back in order, with their errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from skills_pipe.errors import DataError
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.training.prepare.parallel import map_in_order

BATCHES = [[number] for number in range(40)]


def double(batch):
    return [2 * number for number in batch]


def fail_late(batch):
    if batch == [30]:
        raise DataError("row 30 is wrong", where="there", fix="mend it")
    return [os.getpid()]


@pytest.mark.parametrize("workers", [1, 2, 5, None])
@pytest.mark.parametrize("count", [0, 1, 5, 6, 40])
def test_results_come_in_order(workers, count):
    assert list(map_in_order(double, BATCHES[:count], workers=workers)) == [[2 * number] for number in range(count)]


def test_an_error_of_a_worker_arrives_whole():
    results = map_in_order(fail_late, BATCHES, workers=2)
    with pytest.raises(DataError) as caught:
        list(results)
    assert str(caught.value) == "row 30 is wrong (there): mend it"


def test_other_processes_do_the_work():
    pids = {pid for batch in map_in_order(fail_late, BATCHES[:30], workers=2) for pid in batch}
    assert pids
    assert os.getpid() not in pids


def test_a_slow_reader_holds_the_source_back():
    taken = []
    source = (taken.append(number) or [number] for number in range(1000))
    results = map_in_order(double, source, workers=2)
    next(results)
    assert len(taken) < 20
    results.close()


SCRIPT = r"""
import os
from skills_pipe.training.prepare.parallel import map_in_order
def work(batch):
    os.write(1, f"{os.getpid()}\n".encode())
    return batch
for batch in map_in_order(work, ([number] for number in range(10**9)), workers=2):
    pass
"""


def test_workers_end_when_their_parent_is_killed():
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    pids = {int(process.stdout.readline()) for _ in range(50)}
    assert pids
    assert process.pid not in pids
    workers = [ProcessId.of(pid) for pid in pids]
    assert all(worker.started for worker in workers)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    while any(worker.is_alive for worker in workers):
        time.sleep(0.01)
