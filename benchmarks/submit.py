"""What submitting costs: a chain of jobs by the script of ``ns``, beside the same number of bare sbatch calls.

    python benchmarks/submit.py --jobs 100 --rounds 7

Starts a Slurm of its own, as the tests do: four nodes on this machine, which needs root. Both kinds in turn, medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind
from skills_pipe.pipeline.plan import Command, Edge, Job, Plan, Resources, Stage
from skills_pipe.pipeline.submit import submit
from tests.slurm.cluster import SlurmCluster
from tests.slurm.spec import ClusterSpec


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with SlurmCluster(ClusterSpec(containers=False)) as slurm, tempfile.TemporaryDirectory() as folder:
        os.environ["SLURM_CONF"] = str(slurm.conf)
        rounds = [_round(options.jobs, number, Path(folder)) for number in range(options.rounds)]
    bare, whole = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(ours / theirs for theirs, ours in rounds)
    print(f"{options.jobs} jobs, each waiting for the one before, medians of {options.rounds} rounds")
    print(f"  bare sbatch calls    {bare:6.2f} s")
    print(f"  submit(plan)         {whole:6.2f} s   ratio {ratio:.2f}")


def _round(jobs: int, number: int, folder: Path) -> tuple[float, float]:
    """Seconds of the bare calls, and of ours."""
    first = _timed(lambda: _bare(jobs, folder)), _empty()
    second = _timed(lambda: _ours(jobs, number, folder)), _empty()
    return first[0], second[0]


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _bare(jobs: int, folder: Path) -> None:
    script = folder / "bare.sh"
    script.write_text("#!/bin/bash\n#SBATCH --output=/dev/null\ntrue\n")
    before = ""
    for _ in range(jobs):
        edge = [f"--dependency=afterok:{before}"] if before else []
        before = subprocess.check_output(["sbatch", "--parsable", "--hold", *edge, str(script)], text=True).strip()


def _ours(jobs: int, number: int, folder: Path) -> None:
    names = [f"job-{index}" for index in range(jobs)]
    job = Job(
        name="", stage="work", command=Command(argv=("true",)), resources=Resources(), log_dir=str(folder / "logs")
    )
    chain = [
        replace(job, name=name, edges=(Edge(upstream=names[index - 1]),) if index else ())
        for index, name in enumerate(names)
    ]
    plan = Plan(
        expname=f"round-{number}", command="run_cmd", stages=(Stage(name="work", output=None),), jobs=tuple(chain)
    )
    submit(plan, ClusterConfig(name="bench", executor=ExecutorKind.SLURM, job_dir=str(folder / "jobs")))


def _empty() -> None:
    """Nothing of one round is in the queue of the next."""
    subprocess.run(["scancel", "--user=root"], check=True)
    while subprocess.check_output(["squeue", "-h"]):
        time.sleep(0.1)


if __name__ == "__main__":
    main()
