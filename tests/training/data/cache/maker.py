"""A process that asks a store for an entry: ``python -m tests.training.data.cache.maker STORE KEY LOG [HOLD]``.

It notes in LOG that it makes the entry; with HOLD it then waits, half-way, until that file is gone. The variables
BEAT_SECONDS and SILENT_SECONDS shorten what a lock of another machine is waited for.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from skills_pipe.errors import DataError
from skills_pipe.training.data.cache import lock as locks
from skills_pipe.training.data.cache.files import DocumentWriter
from skills_pipe.training.data.cache.store import Store
from skills_pipe.training.data.chunk import EncodedChunk
from skills_pipe.training.data.report import DataReport


def main(store: str, key: str, log: str, hold: str | None = None, fate: str = "well") -> None:
    def make(folder: Path) -> None:
        with open(log, "a") as notes:
            notes.write("made\n")
        chunk = EncodedChunk(
            token_ids=np.arange(5, dtype=np.int32), loss_mask=np.ones(5, np.uint8), lengths=np.array([2, 3])
        )
        with DocumentWriter(folder, 9) as writer:
            writer.add(chunk)
            while hold and Path(hold).exists():
                time.sleep(0.02)
            if fate == "refused":
                raise DataError("two rows are bad", where="rows.jsonl:2", fix="mend them")
            writer.seal(DataReport(), {})

    try:
        print(Store(Path(store)).get(key, make).fingerprint)
    except DataError as error:
        print(error)


if __name__ == "__main__":
    locks._BEAT_SECONDS = float(os.environ.get("BEAT_SECONDS", locks._BEAT_SECONDS))
    locks._SILENT_SECONDS = float(os.environ.get("SILENT_SECONDS", locks._SILENT_SECONDS))
    main(*sys.argv[1:])
