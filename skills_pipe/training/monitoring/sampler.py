"""Measuring again and again beside the training, in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Reading = Callable[[], dict[str, float]]
"""Measures something now; raises anything where it cannot."""

_CLOSE_SECONDS = 5.0
"""How long the end of a training waits for a measurement that does not come back."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Values by name, measured at ``time`` (Unix, seconds)."""

    time: float
    values: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured since it was last asked for, and sentences for people about what could not be."""

    samples: list[Sample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def together(cls, parts: list[Measured]) -> Measured:
        """One after the other in time."""
        samples = sorted((sample for part in parts for sample in part.samples), key=lambda sample: sample.time)
        return cls(samples=samples, notes=[note for part in parts for note in part.notes])


class Sampler:
    """Calls ``readings`` every ``interval`` seconds until it is closed; what fails is told once and tried again.

    Args:
        readings: what people know them by, and how they are measured.
        interval: seconds between two measurements; the first is made at once.
        prefix: put before the names of values, and before what is told.
    """

    def __init__(self, readings: Mapping[str, Reading], *, interval: float, prefix: str) -> None:
        self._readings, self._interval, self._prefix = readings, interval, prefix
        self._failed: set[str] = set()
        self._samples: list[Sample] = []
        self._notes: list[str] = []
        self._changing, self._ended = threading.Lock(), threading.Event()
        # A daemon: a driver that hangs must not keep a process alive that is done.
        self._thread = threading.Thread(target=self._work, name=f"sampler of {prefix}", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def take(self) -> Measured:
        """What has come together since the last call."""
        with self._changing:
            taken = Measured(samples=self._samples, notes=self._notes)
            self._samples, self._notes = [], []
        return taken

    def close(self) -> None:
        """Measure no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)

    def _work(self) -> None:
        while not self._ended.is_set():
            self._measure()
            self._ended.wait(self._interval)

    def _measure(self) -> None:
        now, values, notes = time.time(), {}, []
        for what, reading in self._readings.items():
            try:
                values |= {f"{self._prefix}.{name}": value for name, value in reading().items()}
            except Exception as error:  # of any kind: nobody trains less for want of such a number
                if what not in self._failed:
                    notes.append(f"{what} of {self._prefix} cannot be measured: {type(error).__name__}: {error}")
                self._failed.add(what)
        with self._changing:
            self._notes += notes
            if values:
                self._samples.append(Sample(time=now, values=values))
