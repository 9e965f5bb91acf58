"""A process is told from a later one with the same number, a dead one from a live one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

from skills_pipe.pipeline.records import process
from skills_pipe.pipeline.records.process import ProcessId, kill, marked
from tests.pipeline.programs import until

_PS = ["ps", "-o", "lstart=", "-p", str(os.getpid())]
_SLEEP = [sys.executable, "-c", "import time; time.sleep(1000)"]


def test_this_process_is_alive():
    assert ProcessId.current().is_alive
    assert ProcessId.from_json(ProcessId.current().to_json()) == ProcessId.current()


def test_a_process_that_has_ended_is_dead_before_and_after_it_is_reaped():
    started = subprocess.Popen(_SLEEP)
    known = ProcessId.of(started.pid)
    assert known.is_alive
    started.kill()
    until(lambda: not known.is_alive, "the zombie counts as dead")
    started.wait()
    assert not known.is_alive


def test_without_proc_a_start_is_told_alike_wherever_and_however_it_is_asked(monkeypatch):
    """As on a laptop that is taken to another time zone; there, ps is all there is."""
    told = set()
    for zone, columns in (("UTC", "80"), ("JST-9", "80"), ("UTC", "6")):
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setenv("COLUMNS", columns)
        told.add(process._started_by_ps(os.getpid()))
    assert len(told) == 1 and None not in told
    shown = {
        subprocess.run(_PS, env=os.environ | {"TZ": zone}, capture_output=True).stdout for zone in ("UTC", "JST-9")
    }
    assert len(shown) == 2, "negative control: ps itself tells the time of the place"


def test_another_process_with_the_same_number_is_another_process():
    assert not replace(ProcessId.current(), started="1").is_alive


def test_a_process_of_another_machine_counts_as_alive():
    elsewhere = replace(ProcessId.current(), host="elsewhere", pid=1)
    assert elsewhere.is_alive and not elsewhere.is_here


def test_signals_go_to_the_live_ones_of_this_machine_only():
    started = subprocess.Popen(_SLEEP)
    known = ProcessId.of(started.pid)
    kill([replace(known, host="elsewhere"), replace(known, started="1")], signal.SIGKILL)
    assert known.is_alive
    kill([known], signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL


def test_processes_are_found_by_a_mark_in_their_environment():
    started = subprocess.Popen(_SLEEP, env=os.environ | {"MARK_OF_A_TEST": "one two"}, start_new_session=True)
    try:
        until(lambda: marked("MARK_OF_A_TEST=one two"), "the process has its environment")
        assert marked("MARK_OF_A_TEST=one two") == [ProcessId.of(started.pid)]
        assert marked("MARK_OF_A_TEST=one") == []
    finally:
        started.kill()
        started.wait()
    assert marked("MARK_OF_A_TEST=one two") == []
