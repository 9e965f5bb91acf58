"""Starting programs in several processes, as a launcher would."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, STDOUT, CompletedProcess, Popen

ROOT = Path(__file__).resolve().parents[2]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a job: one thread, the repository on the path."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": paths} | extra


def python(module: str, *arguments: str) -> list[str]:
    """Command for one process."""
    return [sys.executable, "-m", module, *arguments]


def torchrun(ranks: int, module: str, *arguments: str) -> list[str]:
    """Command for several processes on this machine."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"),
        *("-m", module, *arguments),
    ]


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """Run to the end and return what it said; standard error is joined to standard output."""
    return subprocess.run(command, env=env or environment(), stdout=PIPE, stderr=STDOUT, text=True, timeout=300)


def run_together(command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> list[CompletedProcess[str]]:
    """Run a command once in each environment, all at once, to their ends; where one fails, the others are killed."""
    tasks = [Popen(command, env=env, stdout=PIPE, stderr=STDOUT, text=True) for env in environments]

    def wait(task: Popen[str]) -> CompletedProcess[str]:
        try:
            said, _ = task.communicate(timeout=300)
        finally:
            if task.returncode != 0:
                for other in tasks:
                    other.kill()
        return CompletedProcess(command, task.returncode, said)

    with ThreadPoolExecutor(len(tasks)) as threads:
        return list(threads.map(wait, tasks))
