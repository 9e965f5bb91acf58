"""The ``++`` keys of programs that the launcher does not import: they are asked themselves, as processes.

A program that is started with ``--check`` in front of its arguments judges them, does nothing else, and prints each
problem as a line ``error: ...``.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from skills_pipe.pipeline.checks.finding import Checked, error

_SECONDS = 60


def check_keys(subject: str, programs: Sequence[Sequence[str]]) -> Checked:
    """What programs say about their arguments.

    Args:
        subject: of the findings.
        programs: of each the module and its arguments.
    """
    findings = []
    for module, *words in dict.fromkeys(tuple(program) for program in programs):
        argv = [sys.executable, "-m", module, "--check", *words]
        ended = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=_SECONDS
        )
        told = [line.removeprefix("error: ") for line in ended.stderr.splitlines() if line.startswith("error: ")]
        if ended.returncode not in (0, 2) or (ended.returncode == 2 and not told):
            return Checked(subject=subject, left_out=f"{module} cannot be asked here")
        findings += [error(problem) for problem in told]
    return Checked(subject=subject, findings=tuple(dict.fromkeys(findings)))
