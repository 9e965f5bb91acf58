from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from skills_pipe.artifacts.names import ENV_DEADLINE, ENV_SAVE_NOW
from skills_pipe.training.distributed import World
from skills_pipe.training.signals import SignalListener, StopReason, StopRequest, StopSettings, process_start

ALONE = World(rank=0, size=1, device=torch.device("cpu"))


def poll(settings=None, listener=None, *, steps=1, step_seconds=0.0, save_seconds=0.0):
    request = StopRequest(settings or StopSettings(), listener or SignalListener(), ALONE)
    return request.poll(steps=steps, step_seconds=step_seconds, save_seconds=save_seconds)


def test_without_a_reason_training_goes_on():
    assert poll() is StopReason.NONE


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_is_remembered_and_does_not_kill(name):
    listener = SignalListener()
    with listener.listening():
        os.kill(os.getpid(), signal.Signals[name])
        assert poll(listener=listener) is StopReason[name]


def test_the_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with SignalListener().listening():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_gravest_signal_counts():
    listener = SignalListener()
    with listener.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
    assert listener.received is StopReason.SIGTERM


def test_the_save_now_file_stops_when_it_appears(tmp_path):
    settings = StopSettings(save_now=tmp_path / "save-now")
    assert poll(settings) is StopReason.NONE
    (tmp_path / "save-now").touch()
    assert poll(settings) is StopReason.SAVE_NOW
    # Users read it in `ns status`, and know of no such file.
    assert StopReason.SAVE_NOW.sentence == "it was asked to save and end, as before a time limit"


@pytest.mark.parametrize(
    ("left", "step_seconds", "save_seconds", "expected"),
    [
        (1000, 10, 100, StopReason.NONE),
        (155, 10, 100, StopReason.DEADLINE),  # 1.5 saves and a step need 160 seconds
        (165, 10, 100, StopReason.NONE),
        (-5, 0, 0, StopReason.DEADLINE),
    ],
)
def test_a_step_and_one_and_a_half_saves_must_fit_before_the_deadline(left, step_seconds, save_seconds, expected):
    settings = StopSettings(deadline=time.time() + left)
    assert poll(settings, step_seconds=step_seconds, save_seconds=save_seconds) is expected


@pytest.mark.parametrize(("steps", "expected"), [(3, StopReason.NONE), (4, StopReason.STEPS), (5, StopReason.STEPS)])
def test_a_job_does_its_number_of_steps(steps, expected):
    assert poll(StopSettings(steps=4), steps=steps) is expected


def test_every_reason_has_a_sentence():
    assert all(reason.sentence for reason in StopReason if reason)
    assert not StopReason.NONE.sentence


def test_settings_come_from_the_launchers_environment(monkeypatch, tmp_path):
    monkeypatch.setenv(ENV_DEADLINE, "1234.5")
    monkeypatch.setenv(ENV_SAVE_NOW, str(tmp_path / "now"))
    settings = StopSettings.from_environment(must_save_by=None, steps=7)
    assert settings == StopSettings(deadline=1234.5, save_now=tmp_path / "now", steps=7)


def test_the_earlier_of_two_limits_counts(monkeypatch):
    monkeypatch.setenv(ENV_DEADLINE, str(process_start() + 500))
    settings = StopSettings.from_environment(must_save_by=100, steps=None)
    assert settings.deadline == pytest.approx(process_start() + 100, abs=1)


def test_without_a_launcher_there_is_no_limit(monkeypatch):
    monkeypatch.delenv(ENV_DEADLINE, raising=False)
    monkeypatch.delenv(ENV_SAVE_NOW, raising=False)
    assert StopSettings.from_environment(must_save_by=None, steps=None) == StopSettings()


def test_the_clock_starts_with_the_process_and_not_after_its_imports():
    program = "import time; t = time.time(); import skills_pipe.training.signals as s; print(t - s.process_start())"
    began = time.time()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert -0.05 <= float(ended.stdout) <= time.time() - began
