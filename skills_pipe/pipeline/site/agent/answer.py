"""Answers questions about the files of a machine, and changes them: a list of actions, done in their order.

On a login node behind ssh the files of this folder are sent as text to ``python3``; everywhere else the launcher
imports them. So they need the standard library only, and Python 3.6: annotations are quoted, for it looks them up.
"""

import subprocess
from typing import Any

from skills_pipe.pipeline.site.agent.looking import look
from skills_pipe.pipeline.site.agent.outputs import claim, put_back, set_aside, unclaim
from skills_pipe.pipeline.site.agent.records import make_run, records, tail, unmake_run, write


def answer(actions: "list[dict[str, Any]]") -> "list[dict[str, Any]]":
    """Do ``actions``, each ``{"do": name, ...}``, until one cannot be done or is refused; their answers.

    What cannot be done is answered with ``error`` and ``path``; what comes after it has no answer.
    """
    answers = []  # type: list[dict[str, Any]]
    for action in actions:
        words = dict(action)
        try:
            done = _ACTIONS[words.pop("do")](**words)  # type: dict[str, Any]
            answers.append(done)
        except OSError as error:
            answers.append({"error": error.strerror or str(error), "path": error.filename or ""})
        if "error" in answers[-1] or "refused" in answers[-1]:
            break
    return answers


def program(argv: "list[str]", stdin: str) -> "dict[str, Any]":
    """Run a program and wait for its end; one that is not there ends as in a shell, with 127."""
    try:
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        return {"code": 127, "out": "", "err": "not found"}
    out, err = process.communicate(stdin.encode("utf-8"))
    return {"code": process.returncode, "out": out.decode("utf-8", "replace"), "err": err.decode("utf-8", "replace")}


_ACTIONS = {
    "look": look,
    "claim": claim,
    "unclaim": unclaim,
    "set_aside": set_aside,
    "put_back": put_back,
    "make_run": make_run,
    "unmake_run": unmake_run,
    "write": write,
    "records": records,
    "tail": tail,
    "program": program,
}  # type: dict[str, Any]
