"""A process that tokenises: tasks come in pickled on its standard input, chunks go out on its standard output.

Started by :mod:`pool` as a program of its own: unlike a fork it inherits no threads of torch or NCCL, and unlike
multiprocessing's spawn it does not run the user's script again, which may have no ``__main__`` guard.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any, BinaryIO

from skills_pipe.errors import DataError
from skills_pipe.training.data.chunk import ChunkEncoder, Recipe


def main() -> None:
    """Answer tasks until the input ends, as it does when the parent dies."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What libraries print must not get between the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    asked = sys.stdin.buffer
    encoder: ChunkEncoder | None = None
    while (message := _next(asked)) is not None:
        if isinstance(message, Recipe):
            encoder = ChunkEncoder(message)
            continue
        if encoder is None:
            raise RuntimeError("a task came before the recipe")
        try:
            answer: Any = encoder.encode(message.rows())
        except DataError as error:
            answer = error
        pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()


def _next(asked: BinaryIO) -> Any:
    """The next message; None when there will be none."""
    try:
        return pickle.load(asked)
    except EOFError:
        return None


if __name__ == "__main__":
    main()
