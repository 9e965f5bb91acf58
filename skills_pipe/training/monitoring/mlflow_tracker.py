"""MLflow, which training never waits for: a thread of its own talks to the server."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from types import ModuleType
from typing import Any

from skills_pipe.errors import ConfigError, first_line
from skills_pipe.training.config.schema.logger import MlflowConfig
from skills_pipe.training.monitoring.run_ids import RunIds

START_SECONDS = 60.0
"""How long a job waits for the server before it refuses to start: MLflow by itself tries for a quarter of an hour."""

CLOSE_SECONDS = 15.0
"""How long the end of a job waits for the server to take the last values."""

_VALUES_PER_REQUEST = 1000  # more are refused
_MOST_WAITING = 1_000_000
_NOT_IN_NAMES = re.compile(r"[^\w./: -]")
"""One name with another character, and nothing is taken of what is sent with it."""
_PASSWORD = re.compile(r"(?<=://)[^\s/@]+(?=@)")


class MlflowTracker:
    """A run at MLflow.

    MLflow repeats a request for minutes where the server does not answer, and its own way of logging in the background
    waits without an end when the program ends. Here values wait in memory, and are sent as many at a time as there
    are. A server that is down must not end a training: its numbers are in ``metrics.jsonl`` as well.

    Args:
        module: the package.
        settings: section ``logger.mlflow``.
        ids: where the run is remembered for the jobs that follow.

    Raises:
        ConfigError: the server refuses the run, or does not answer within :data:`START_SECONDS`.
    """

    def __init__(self, module: ModuleType, settings: MlflowConfig, ids: RunIds) -> None:
        self._module, self._settings = module, settings
        self._waiting: deque[Any] = deque()
        self._under_way: list[Any] = []
        self._changed = threading.Condition()
        self._closing, self._lost, self._status = False, False, "RUNNING"
        self._started: Future[str] = Future()
        known = settings.run_id or ids.kept("mlflow")
        # All of it in one thread, to which MLflow's notion of an active run belongs. The program's end stops it.
        self._thread = threading.Thread(target=self._work, args=(known,), name="mlflow", daemon=True)
        self._thread.start()
        ids.keep("mlflow", self._run_id())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Have the values of a step sent; returns at once."""
        now = time.time_ns() // 1_000_000
        metric = self._module.entities.Metric
        made = [metric(_NOT_IN_NAMES.sub("_", name), value, now, step) for name, value in values.items()]
        with self._changed:
            if len(self._waiting) + len(made) <= _MOST_WAITING:
                self._waiting.extend(made)
                self._changed.notify_all()
                return
        self._tell(f"from step {step} on", "too many values wait for the server")

    def log_nodes(self, seconds: int, values: Mapping[str, float]) -> None:
        """Have what nodes use sent; the axis of steps is then one of seconds."""
        self.log(seconds, values)

    def close(self, *, failed: bool = False) -> None:
        """End the run once all is sent, or give up after :data:`CLOSE_SECONDS`."""
        with self._changed:
            self._closing, self._status = True, "FAILED" if failed else "FINISHED"
            self._changed.notify_all()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            with self._changed:
                left = [*self._under_way, *self._waiting]
            since = f"the values from step {left[0].step} on are" if left else "the end of the run is"
            print(
                f"MLflow did not answer for {CLOSE_SECONDS:g} seconds: {since} not there; metrics.jsonl has all",
                flush=True,
            )

    def settle(self, seconds: float) -> bool:
        """Wait until nothing is left to send, for so long at most; whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._under_way, seconds)

    def _run_id(self) -> str:
        """Of the run that the thread starts."""
        fix = "set logger.mlflow.tracking_uri, or logger.mlflow_enabled=false"
        wait([self._started], START_SECONDS)
        if not self._started.done():
            raise ConfigError(
                f"MLflow does not start the run: no answer for {START_SECONDS:g} seconds",
                where="logger.mlflow",
                fix=fix,
            )
        try:
            return self._started.result()
        except Exception as error:
            what = f"MLflow does not start the run: {said(error)}"
            raise ConfigError(what, where="logger.mlflow", fix=fix) from None

    def _work(self, known: str | None) -> None:
        """What the thread does."""
        try:
            identity = self._start(known)
        except Exception as error:  # raised where the run is waited for
            self._started.set_exception(error)
            return
        self._started.set_result(identity)
        client = self._module.MlflowClient()
        while batch := self._next():
            self._attempt(lambda sent=batch: client.log_batch(identity, sent), when=f"from step {batch[0].step} on")
        self._attempt(lambda: self._module.end_run(self._status), when="at the end")

    def _start(self, known: str | None) -> str:
        settings, module = self._settings, self._module
        if settings.tracking_uri:
            module.set_tracking_uri(settings.tracking_uri)
        if module.get_experiment_by_name(settings.experiment_name) is None:
            module.create_experiment(settings.experiment_name, artifact_location=settings.artifact_location)
        module.set_experiment(settings.experiment_name)
        identity: str = module.start_run(run_id=known, run_name=settings.run_name).info.run_id
        return identity

    def _next(self) -> list[Any]:
        """What to send next, of as many steps as wait; nothing at the end."""
        with self._changed:
            self._under_way = []
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._closing)
            count = min(len(self._waiting), _VALUES_PER_REQUEST)
            self._under_way = [self._waiting.popleft() for _ in range(count)]
            return self._under_way

    def _attempt(self, action: Callable[[], object], *, when: str) -> None:
        try:
            action()
        except Exception as error:  # of any kind: without this thread all that follows would be lost, and nothing said
            self._tell(when, said(error))
        else:
            self._lost = False

    def _tell(self, when: str, why: str) -> None:
        """Once, until the server takes something again."""
        if not self._lost:
            print(f"MLflow takes nothing {when}: {why}", flush=True)
        self._lost = True


def said(error: Exception) -> str:
    """The first line of an error, without the password that an address in it may hold."""
    return _PASSWORD.sub("***", first_line(error))
