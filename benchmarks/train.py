"""The same training by this package, TRL and the Trainer of transformers, in turn: ratios of tokens per second.

::

    python benchmarks/train.py --quick                          # 20 M, bf16, 1 process, packed; under 10 minutes
    python benchmarks/train.py --rounds 5                       # every cell
    python benchmarks/train.py --check                          # step by step the same loss as the Trainer's, fp32

Models are random Llamas, chats are synthetic with lognormal lengths, what is trained is what the assistant says: the
programs' counts of these tokens are compared. Each program starts afresh. TRL lives in an environment that is made at
the first call in ``--venv``, with the torch and transformers of this one; ``--peers PYTHON`` takes another instead.
On a machine with other work add ``--threads 1`` and compare the processor seconds: clocks then measure the others.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from train_inputs import LIMIT
from train_peers import Job

TRL = "1.16.0"
BATCH = 8
OURS = ("ours-packed", "ours-chats")
PEERS = ("trl-packed", "trl", "hf")
LABELS = {
    "ours-packed": "ours, rows packed over the data set",
    "ours-chats": "ours, 8 chats a step, packed",
    "trl-packed": "TRL, packed (bfd)",
    "trl": "TRL, padded",
    "hf": "HF Trainer, padded",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One setting in which all programs are measured."""

    model: str
    precision: str
    processes: int

    def __str__(self) -> str:
        return f"{self.model} {self.precision} {self.processes} process{'es' if self.processes > 1 else ''}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a program.

    Attributes:
        tokens_per_second: without padding, all processes together, without the first step.
        processor: seconds of processors per 1,000 of these tokens; nan where there are several processes.
        first_step: seconds from the start of the program to the end of its first step.
        first_processor: seconds of processors until then; nan where there are several processes.
        memory: largest resident set of a process, GB.
        losses: of each step.
        all_targets: supervised tokens of the data set.
    """

    tokens_per_second: float
    processor: float
    first_step: float
    first_processor: float
    memory: float
    losses: list[float]
    all_targets: int


def main() -> None:
    """Make inputs, measure, print."""
    arguments = _parse()
    peers = arguments.peers or _peers_environment(Path(arguments.venv))
    print(f"versions: {_versions(peers)}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = [sys.executable, str(Path(__file__).with_name("train_inputs.py")), name, str(arguments.rows)]
        subprocess.run([*inputs, *arguments.models], check=True, stderr=subprocess.DEVNULL)
        if arguments.check:
            _check(arguments, folder, peers)
            return
        for parts in itertools.product(arguments.models, arguments.precisions, arguments.processes):
            cell = Cell(model=parts[0], precision=parts[1], processes=parts[2])
            _show(cell, _rounds(cell, arguments, folder, peers), arguments.quick)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one cell, and the ratio to TRL in the first line")
    parser.add_argument("--check", action="store_true", help="compare losses with the Trainer's instead of speed")
    parser.add_argument("--models", nargs="+", default=["20m", "100m"])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--programs", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="of packed rows; of padded chats three times as many")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--threads", type=int, help="of each process; by default the cores, shared out")
    parser.add_argument("--minutes", type=float, help="start no round of a cell after this time")
    parser.add_argument("--peers", help="Python of an environment with TRL")
    parser.add_argument("--venv", default=str(Path.home() / ".cache" / "skills_pipe" / f"benchmarks-trl-{TRL}"))
    parser.add_argument("--ours", nargs="*", default=[], metavar="KEY=VALUE", help="overrides for this package's runs")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.models, arguments.precisions, arguments.processes = ["20m"], ["bfloat16"], [1]
        arguments.programs = ["ours-packed", "trl-packed", "hf"]
        arguments.minutes = arguments.minutes or 6.0
    if arguments.check:
        arguments.models = arguments.models[:1]
    return arguments


def _peers_environment(folder: Path) -> str:
    """Python of an environment with TRL and this one's versions of what both need; made where it is missing."""
    python = folder / "bin" / "python"
    done = folder / "complete"
    if not done.exists():
        print(f"making {folder}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        shared = [f"{name}=={importlib.metadata.version(name)}" for name in ("torch", "transformers", "tokenizers")]
        wanted = [requirement.partition("+")[0] for requirement in shared]
        subprocess.run([str(python), "-m", "pip", "install", "-q", *wanted, f"trl=={TRL}", "datasets"], check=True)
        done.touch()
    return str(python)


def _versions(peers: str) -> str:
    code = (
        "import importlib.metadata as m; "
        "print(', '.join(f'{n} {m.version(n)}' for n in ('torch', 'transformers', 'accelerate', 'datasets', 'trl')))"
    )
    theirs = subprocess.run([peers, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
    ours = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    return f"ours {ours}; peers {theirs}"


def _rounds(cell: Cell, arguments: argparse.Namespace, folder: Path, peers: str) -> dict[str, list[Measured]]:
    """Every program in turn, several times."""
    found: dict[str, list[Measured]] = {name: [] for name in arguments.programs}
    end = time.monotonic() + 60 * arguments.minutes if arguments.minutes else float("inf")
    for number in range(arguments.rounds):
        if number and time.monotonic() > end:
            break
        for name in arguments.programs:
            steps = arguments.steps * (1 if name.endswith("packed") else 3) + 1
            job = _job(name, cell, folder, steps)
            measured = _run(job, arguments, peers)
            print(f"{cell} round {number + 1} {LABELS[name]}: {_words(measured)}", file=sys.stderr)
            found[name].append(measured)
    _same_targets(run for runs in found.values() for run in runs)
    return found


def _job(program: str, cell: Cell, folder: Path, steps: int, *, shuffle: bool = True) -> Job:
    return Job(
        program=program,
        model=str(folder / cell.model),
        rows=str(folder / "rows.jsonl"),
        precision=cell.precision,
        limit=LIMIT,
        batch=BATCH,
        processes=cell.processes,
        steps=steps,
        shuffle=shuffle,
        output=tempfile.mkdtemp(dir=folder),
    )


def _run(job: Job, arguments: argparse.Namespace, peers: str) -> Measured:
    ours = job.program in OURS
    program = _ours(job, arguments.ours) if ours else [str(Path(__file__).with_name("train_peers.py")), _json(job)]
    python = sys.executable if ours else peers
    if job.processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.processes}"]
        program = [*launcher, *program]
    threads = arguments.threads or max(1, (os.cpu_count() or 1) // job.processes)
    environment = os.environ | {
        "HF_HOME": str(Path(job.output).with_name("hf")),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        "SKILLS_PIPE_CACHE": str(Path(job.output) / "cache"),
    }
    log = Path(job.output, "log")
    began = time.time()
    with open(log, "w") as file:
        process = subprocess.Popen([python, *program], stdout=file, stderr=file, env=environment, cwd=job.output)
        processor = _watch(process, job)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{job.program} ended with {process.returncode}:\n{log.read_text()[-4000:]}")
    steps = _steps(job)
    times = [step["time"] for step in steps]
    tokens = sum(step["tokens"] for step in steps[1:])
    return Measured(
        tokens_per_second=tokens / (times[-1] - times[0]),
        processor=1000 * (processor[-1] - processor[0]) / tokens if job.processes == 1 else float("nan"),
        first_step=times[0] - began,
        first_processor=processor[0] if job.processes == 1 else float("nan"),
        memory=usage.ru_maxrss / 1e6,
        losses=[step["loss"] for step in steps],
        all_targets=_all_targets(log, ours),
    )


def _json(job: Job) -> str:
    return json.dumps(asdict(job))


def _ours(job: Job, overrides: list[str]) -> list[str]:
    """The program of a training job, with the settings of the peers."""
    packing = "dataset" if job.program == "ours-packed" else "batch"
    return [
        *("-m", "skills_pipe.training.sft"),
        f"policy.model_name={job.model}",
        f"policy.precision={job.precision}",
        f"policy.train_global_batch_size={job.batch}",
        f"policy.max_total_sequence_length={job.limit}",
        "policy.lr=1e-4",
        "policy.weight_decay=0",
        "policy.optimizer.kwargs.betas=[0.9,0.999]",
        f"policy.sequence_packing.scope={packing}",
        "policy.sequence_packing.algorithm=best_fit_decreasing",
        f"data.train_data_path={job.rows}",
        f"data.shuffle={str(job.shuffle).lower()}",
        f"sft.max_num_steps={job.steps}",
        "checkpointing.enabled=false",
        f"logger.log_dir={job.output}",
        "logger.tensorboard_enabled=false",
        *overrides,
    ]


def _watch(process: subprocess.Popen[bytes], job: Job) -> list[float]:
    """Processor seconds of the process at the end of each step, as soon as the step is told of."""
    seen: list[float] = []
    ticks = os.sysconf("SC_CLK_TCK")
    # waitid without reaping: the resources are asked for afterwards.
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        count = len(_steps(job))
        if count > len(seen):
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            # Its own and those of its children that have ended, which made its data.
            seen += [sum(map(int, fields[11:15])) / ticks] * (count - len(seen))
        time.sleep(0.02)
    return seen


def _steps(job: Job) -> list[dict[str, float]]:
    """What the program has written of its steps so far: time, tokens of all ranks, loss of the first."""
    if job.program in OURS:
        lines = [line for line in _lines(Path(job.output, "metrics.jsonl")) if "train/loss" in line]
        return [{"time": at["time"], "tokens": at["train/tokens"], "loss": at["train/loss"]} for at in lines]
    ranks = [_lines(Path(job.output, f"steps-{rank}.jsonl")) for rank in range(job.processes)]
    return [
        {**first, "tokens": sum(at["tokens"] for at in (first, *rest))} for first, *rest in zip(*ranks, strict=False)
    ]


def _lines(path: Path) -> list[dict[str, float]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def _all_targets(log: Path, ours: bool) -> int:
    """Supervised tokens of the whole data set, as the program says."""
    for line in log.read_text().splitlines():
        if ours and line.startswith("training data: trained tokens: "):
            return int(line.removeprefix("training data: trained tokens: ").split()[0].replace(",", ""))
        if not ours and line.startswith('{"all_targets"'):
            return int(json.loads(line)["all_targets"])
    raise SystemExit(f"no number of supervised tokens in\n{log.read_text()[-4000:]}")


def _same_targets(runs: Iterable[Measured]) -> None:
    counts = {run.all_targets for run in runs}
    if len(counts) != 1:
        raise SystemExit(f"the programs do not train the same tokens: {sorted(counts)}")


def _words(run: Measured) -> str:
    return (
        f"{run.tokens_per_second:,.0f} tokens/s, {run.processor:.3f} processor s per 1,000, "
        f"first step after {run.first_step:.1f} s (processor {run.first_processor:.1f} s), {run.memory:.2f} GB"
    )


def _show(cell: Cell, found: dict[str, list[Measured]], quick: bool) -> None:
    """A table of medians; ratios are medians over rounds."""
    first = next(iter(found))
    if quick:
        print(f"ratio ours/TRL: {_ratio(found[first], found['trl-packed']):.2f}")
    load = os.getloadavg()[0]
    print(f"{cell}; {found[first][0].all_targets:,} supervised tokens in the data of each; load {load:.1f}")
    for name, runs in found.items():
        rate, processor, start, start_processor, memory = (
            statistics.median(getattr(run, field) for run in runs)
            for field in ("tokens_per_second", "processor", "first_step", "first_processor", "memory")
        )
        start_ratio = statistics.median(a.first_step / b.first_step for a, b in zip(found[first], runs, strict=True))
        print(
            f"{LABELS[name]:36} {rate:8,.0f} tokens/s  ours/this {_ratio(found[first], runs):5.2f}  "
            f"processor s/1,000 {processor:6.3f} (this/ours {_work(found[first], runs):5.2f})  "
            f"first step {start:5.1f} s (ours/this {start_ratio:4.2f}; processor {start_processor:5.1f} s)  "
            f"{memory:5.2f} GB"
        )


def _ratio(ours: list[Measured], theirs: list[Measured]) -> float:
    return statistics.median(a.tokens_per_second / b.tokens_per_second for a, b in zip(ours, theirs, strict=True))


def _work(ours: list[Measured], theirs: list[Measured]) -> float:
    return statistics.median(b.processor / a.processor for a, b in zip(ours, theirs, strict=True))


def _check(arguments: argparse.Namespace, folder: Path, peers: str) -> None:
    """Losses of both on the same chats in the same order, in fp32; after each step the weights have to agree too."""
    cell = Cell(model=arguments.models[0], precision="float32", processes=1)
    runs = [
        _run(_job(name, cell, folder, arguments.steps, shuffle=False), arguments, peers)
        for name in ("ours-chats", "hf")
    ]
    _same_targets(runs)
    worst = max(abs(ours - theirs) for ours, theirs in zip(runs[0].losses, runs[1].losses, strict=True))
    for number, (ours, theirs) in enumerate(zip(runs[0].losses, runs[1].losses, strict=True), start=1):
        print(f"step {number}: loss ours {ours:.6f}, HF Trainer {theirs:.6f}")
    print(f"largest difference {worst:.1e}: {'equal' if worst <= 1e-4 else 'NOT equal'} to 1e-4")
    if worst > 1e-4:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
