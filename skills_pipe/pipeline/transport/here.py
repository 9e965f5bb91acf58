"""Programs of this machine, which is a login node itself."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from skills_pipe.errors import StoreError
from skills_pipe.pipeline.transport.base import NOT_FOUND, TIMEOUT_SECONDS, Answer


@dataclass(frozen=True)
class Here:
    """This machine."""

    def run(self, argv: Sequence[str], *, stdin: str | bytes = "") -> Answer:
        """Run a program as a process of this machine.

        Raises:
            StoreError: it does not end.
        """
        if shutil.which(argv[0]) is None:
            return NOT_FOUND
        data = stdin.encode() if isinstance(stdin, str) else stdin
        try:
            ended = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            what = f"{argv[0]} has not ended within {TIMEOUT_SECONDS} seconds"
            raise StoreError(what, fix="try again when the controller of Slurm and the file system are back") from None
        out, err = (text.decode(errors="replace") for text in (ended.stdout, ended.stderr))
        return Answer(code=ended.returncode, out=out, err=err)
