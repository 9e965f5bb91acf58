"""The one program that imports nemo-run. It runs as a process of its own, maybe in an environment of its own.

    python bridge.py check  < request.json    make the executors and nothing else
    python bridge.py submit < request.json    start all tasks of a queueing executor, and say their ids
    python bridge.py run request.json         start one task, stay until its end, end as it did

``check`` and ``submit`` answer with one line of JSON on standard output: ``{"ids": {task: id}}``, and with exit code 1
``{"error": "...", "ids": {...}}`` when nemo-run refused. All that nemo-run prints goes to standard error.

It imports nothing of this package: the environment of nemo-run need not have it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import fields
from types import FrameType
from typing import Any, NoReturn, TextIO

_BRACES = re.compile(r"\{(\w+)\}")
_SUCCEEDED = "SUCCEEDED"
_ENDED = (_SUCCEEDED, "FAILED", "CANCELLED")
_PR_SET_PDEATHSIG = 1
_UNKNOWN_AT_MOST = 30
"""Times in a row that nemo-run may not know a task before it is given up."""


class Refused(Exception):
    """nemo-run, or what it talks to, does not take the request."""


class Stopped(BaseException):
    """A signal asked to stop."""


def main(argv: list[str]) -> int:
    """Do what the first word says."""
    # nemo-run prints wherever it likes; the answer has a channel of its own.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        if argv[0] == "run":
            with open(argv[1]) as request:
                return _run(json.load(request))
        return _answer(argv[0], json.load(sys.stdin), answer)


def _answer(word: str, request: Mapping[str, Any], answer: TextIO) -> int:
    found: dict[str, Any] = {"ids": {}}
    try:
        if word == "check":
            for task in request["tasks"]:
                _executor(task)
        else:
            _submit(request, found)
    except Refused as error:
        found["error"] = str(error)
    except Exception as error:  # its words are for the user: whatever nemo-run raises is a refusal
        found["error"] = _words(error)
    print(json.dumps(found), file=answer)
    return 1 if "error" in found else 0


def _submit(request: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Start all tasks; ids of those that were accepted stand in ``found`` whatever happens to the others."""
    _die_with(os.getppid())
    with _experiment(request) as experiment:
        for task in request["tasks"]:
            _add(experiment, task)
        # Keywords are filled in, nemo-run is imported: sbatch, and so the jobs, get nothing of what was around here.
        os.environ.clear()
        os.environ.update(request["environment"])
        try:
            experiment.run(detach=True)
        finally:
            for job in experiment.jobs:
                if job.handle:
                    found["ids"][job.id] = job.handle.rpartition("/")[2]


def _run(request: Mapping[str, Any]) -> int:
    """Start one task and wait for its end; TERM cancels it."""
    task = request["tasks"][0]
    interval = float(request["poll_seconds"])
    with _experiment(request) as experiment:
        _add(experiment, task)
        try:
            # Importing nemo-run has put a handler of its own in place.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _stop)
            experiment.run(detach=False)
            state = _last_state(experiment, task["name"], interval)
        except Stopped:
            experiment.cancel(task["name"])
            # Nothing is waited for again when the experiment is left.
            os._exit(143)
    print(f"nemo-run: task {task['name']} {state}", file=sys.stderr)
    return 0 if state == _SUCCEEDED else 1


def _last_state(experiment: Any, name: str, interval: float) -> str:
    unknown = 0
    while True:
        word = _word(experiment.status(return_dict=True)[name]["status"])
        if word in _ENDED:
            return word
        unknown = unknown + 1 if word == "UNKNOWN" else 0
        if unknown > _UNKNOWN_AT_MOST:
            return "is not known to nemo-run any more"
        time.sleep(interval)


def _word(state: Any) -> str:
    """``SUCCEEDED`` of torchx's state of this name, whose text depends on its version."""
    return str(getattr(state, "name", state)).rpartition(".")[2]


def _experiment(request: Mapping[str, Any]) -> Any:
    run = _module("nemo_run")
    return run.Experiment(
        request["title"],
        id=request["experiment"],
        log_level="WARNING",
        clean_mode=True,
        enable_goodbye_message=False,
        skip_status_at_exit=True,
        serialize_metadata_for_scripts=False,
    )


def _add(experiment: Any, task: Mapping[str, Any]) -> None:
    script = _module("nemo_run").Script(path=task["script"], entrypoint="bash")
    experiment.add(script, executor=_executor(task), name=task["name"], dependencies=task["after"] or None)


def _executor(task: Mapping[str, Any]) -> Any:
    """The executor of a task, with its keywords checked by name."""
    module, _, name = task["executor"].partition(":")
    kind = getattr(_module(f"nemo_run.core.execution.{module}"), name)
    known = {field.name for field in fields(kind) if field.init}
    options = _filled(task["options"])
    unknown = sorted(set(options) - known)
    if unknown:
        raise Refused(f"{name} of nemo-run has no keyword {unknown[0]!r} (it has {', '.join(sorted(known))})")
    # The default wants a git repository in the current folder, and packs it.
    return kind(**options, packager=_module("nemo_run").Packager())


def _filled(value: Any) -> Any:
    """``value`` with every ``{NAME}`` in its texts replaced by the environment variable of that name, if it is set."""
    if isinstance(value, str):
        return _BRACES.sub(lambda match: os.environ.get(match.group(1), match.group(0)), value)
    if isinstance(value, dict):
        return {key: _filled(item) for key, item in value.items()}
    return [_filled(item) for item in value] if isinstance(value, list) else value


def _die_with(parent: int) -> None:
    """End when the process ends that waits for the answer: who settles what it left must be the only one at work."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Refused(f"{sys.executable} cannot import {name} ({error})") from error


def _words(error: Exception) -> str:
    """One line on what went wrong; of a program that failed, what it said itself."""
    result = getattr(error, "result", None)
    said = getattr(result, "stderr", "") or ""
    return " ".join((said or f"{type(error).__name__}: {error}").split())


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
