"""Requests to save and end this job: signals, the save-now file, the deadline, a number of steps."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import FrameType

from skills_pipe.artifacts.names import ENV_DEADLINE, ENV_SAVE_NOW
from skills_pipe.training.distributed import World

_RESERVE_SAVES = 1.5
"""How many of the longest saves must fit before the deadline: a file system is not always as fast as it was."""


class StopReason(IntEnum):
    """Why a job should end now; of several the highest counts."""

    NONE = 0
    STEPS = 1
    DEADLINE = 2
    SAVE_NOW = 3
    SIGUSR1 = 4
    SIGTERM = 5

    @property
    def sentence(self) -> str:
        """For the verdict and the log."""
        return {
            StopReason.NONE: "",
            StopReason.STEPS: "this job has done its checkpointing.stop_after_steps",
            StopReason.DEADLINE: "the time of this job is nearly over",
            StopReason.SAVE_NOW: "it was asked to save and end, as before a time limit",
            StopReason.SIGUSR1: "SIGUSR1 was received",
            StopReason.SIGTERM: "SIGTERM was received",
        }[self]


@dataclass(frozen=True, kw_only=True)
class StopSettings:
    """What ends a job besides signals.

    Attributes:
        deadline: Unix time in seconds at which the job will be killed; None for never.
        save_now: a file whose appearance asks to save and end.
        steps: steps that this job does at most.
    """

    deadline: float | None = None
    save_now: Path | None = None
    steps: int | None = None

    @classmethod
    def from_environment(cls, *, must_save_by: float | None, steps: int | None) -> StopSettings:
        """Settings of a launched job; ``must_save_by`` is in seconds after the start of this process."""
        limits = [float(text) for text in [os.environ.get(ENV_DEADLINE)] if text]
        if must_save_by is not None:
            limits.append(process_start() + must_save_by)
        save_now = os.environ.get(ENV_SAVE_NOW)
        return cls(deadline=min(limits, default=None), save_now=Path(save_now) if save_now else None, steps=steps)


class SignalListener:
    """Remembers SIGTERM and SIGUSR1 instead of dying of them."""

    def __init__(self) -> None:
        self._received = StopReason.NONE

    @property
    def received(self) -> StopReason:
        """The gravest signal so far."""
        return self._received

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Catch the signals inside this block."""
        before = {number: signal.signal(number, self._remember) for number in (signal.SIGTERM, signal.SIGUSR1)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        self._received = max(self._received, StopReason[signal.Signals(number).name])


class StopRequest:
    """Polled after each step; gives the same answer on every rank."""

    def __init__(self, settings: StopSettings, listener: SignalListener, world: World) -> None:
        self._settings = settings
        self._listener = listener
        self._world = world

    def poll(self, *, steps: int, step_seconds: float, save_seconds: float) -> StopReason:
        """Whether the job should save and end now.

        Args:
            steps: steps that this job has done.
            step_seconds: duration of the next step, as far as can be told.
            save_seconds: longest save seen, or an estimate before the first.
        """
        local = max(self._listener.received, self._limits(steps, step_seconds + _RESERVE_SAVES * save_seconds))
        # The highest over all ranks: a signal may reach one of them only, and clocks differ.
        return StopReason(int(self._world.max(float(local))))

    def _limits(self, steps: int, reserve: float) -> StopReason:
        settings = self._settings
        if settings.save_now is not None and self._world.first and settings.save_now.exists():
            return StopReason.SAVE_NOW
        if settings.deadline is not None and time.time() + reserve >= settings.deadline:
            return StopReason.DEADLINE
        if settings.steps is not None and steps >= settings.steps:
            return StopReason.STEPS
        return StopReason.NONE


def process_start() -> float:
    """Unix time at which this process started, imports included; now, where /proc does not tell."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return time.time()
    return time.time() - (uptime - ticks / os.sysconf("SC_CLK_TCK"))
