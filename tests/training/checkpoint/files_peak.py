"""Prints by how many bytes the memory of a process grows at most: ``... files_peak export|average|load SMALL LARGE``.

The same is done with a small model first: what grows then are imports and threads.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import load_file

from skills_pipe.training.checkpoint.average import Average, average
from skills_pipe.training.checkpoint.export import Export, export


def once(what: str, folder: Path) -> None:
    """Make a model of the checkpoint of step 1, or the mean of the models of steps 1 and 2, or load a whole model."""
    if what == "export":
        export(Export(training_folder=folder, output=folder / "exported"))
    elif what == "average":
        average(Average(folder=folder, steps=(1, 2), output=folder / "averaged"))
    else:
        total = sum(
            float(value.sum()) for value in load_file(folder / "hf_model_step_1" / "model.safetensors").values()
        )
        print(total, file=sys.stderr)


def peak() -> int:
    """Bytes that this program has held at most; ``getrusage`` would count the process that started it, too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    what, small, large = sys.argv[1:]
    once(what, Path(small))
    before = peak()
    once(what, Path(large))
    print(peak() - before)
