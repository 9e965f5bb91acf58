"""How long a user waits for `ns`: its help and a dry run, beside the bare import of what it is built on.

    python benchmarks/startup.py [--rounds 11]

Runs the commands in turn, so that a drift of the machine's speed touches all alike, and prints medians in seconds with
their ratio to `import typer, rich`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

REFERENCE = "import typer, rich"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11, help="counted runs of each command, after one warm-up")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        commands = _commands(Path(folder))
        seconds = measure(commands, rounds=rounds, environment=_environment(Path(folder)))
    show(seconds)


def measure(
    commands: Mapping[str, Sequence[str]], *, rounds: int, environment: Mapping[str, str]
) -> dict[str, list[float]]:
    """Wall seconds of each command, ``rounds`` values each, taken in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, argv in commands.items():
            start = time.perf_counter()
            subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=dict(environment))
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def show(seconds: Mapping[str, Sequence[float]]) -> None:
    """Print medians and the median of the ratios, round by round."""
    table = Table("command", "median s", "min s", "max s", f"ratio to {REFERENCE!r}")
    for name, values in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(values, seconds[REFERENCE], strict=True))
        numbers = (statistics.median(values), min(values), max(values))
        table.add_row(name, *(f"{number:.3f}" for number in numbers), f"{ratio:.2f}")
    Console(width=120).print(table)


def _environment(folder: Path) -> dict[str, str]:
    """That of an installed package: its bytecode is there from the warm-up on, whatever this shell says about it."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return variables | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode"), "SKILLS_PIPE_JOB_DIR": str(folder)}


def _commands(folder: Path) -> dict[str, list[str]]:
    """The commands to compare; the dry run is a chain of four jobs and a conversion on a Slurm cluster."""
    ns = str(Path(sys.executable).with_name("ns"))
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "data.jsonl").write_text('{"input": "a", "output": "b"}\n')
    (folder / "cluster.yaml").write_text(
        f"executor: slurm\naccount: lab\npartition: gpu\ncpu_partition: cpu\njob_dir: {folder}\n"
        f"container_runtime: none\nmounts: ['{folder}:{folder}']\n"
        f"env_vars: ['HF_HOME={folder}']\ntimeouts: {{gpu: '04:00:00'}}\n"
    )
    dry_run = [
        *("nemo_rl", "sft", "--dry_run", "--cluster=cluster", f"--config_dir={folder}", "--expname=bench"),
        *(f"--output_dir={folder}/out", f"--hf_model={folder}/model", f"--training_data={folder}/data.jsonl"),
        *("--num_nodes=8", "--num_gpus=8", "--num_training_jobs=4", "++sft.max_num_steps=1000"),
    ]
    return {
        REFERENCE: [sys.executable, "-c", REFERENCE],
        "ns --help": [ns, "--help"],
        "ns nemo_rl sft --help": [ns, "nemo_rl", "sft", "--help"],
        "ns nemo_rl sft --dry_run (4 jobs + convert)": [ns, *dry_run],
    }


if __name__ == "__main__":
    main()
