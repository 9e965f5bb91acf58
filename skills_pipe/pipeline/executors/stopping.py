"""Ctrl-C and its like, turned into a request that a loop looks at."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopSignals:
    """While entered, SIGINT, SIGTERM and SIGHUP only set :attr:`requested`; a second one sets :attr:`urgent`.

    Outside the main thread Python delivers no signals, and nothing is changed. A signal that was ignored before
    (``nohup``) stays ignored.
    """

    def __init__(self) -> None:
        self.number = 0
        self.urgent = False
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether one of the signals has arrived."""
        return self.number != 0

    @property
    def name(self) -> str:
        """What arrived, for people."""
        return "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.urgent = self.requested
        self.number = self.number or number
