"""What loading and saving cost: memory of loading, stall of a save, averaging and export beside ``cp``.

::

    python benchmarks/checkpoints.py load --parameters 500 --ranks 1 2 4
    python benchmarks/checkpoints.py stall --parameters 100 --rounds 5
    python benchmarks/checkpoints.py files --parameters 500 --rounds 5
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.checkpoint.average import Average, average
from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.checkpoint.state import DataPosition, RunDescription, Trainee, TrainingInfo
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.distributed import join
from skills_pipe.training.models.attention import IMPLEMENTATION
from skills_pipe.training.models.load import ModelSpec, open_model
from skills_pipe.training.program import leave

RUN = RunDescription(config_yaml="", model_fingerprint="", data_fingerprint="", seed=0, precision="bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["load", "stall", "files", "rank"])
    parser.add_argument("--parameters", type=float, default=100, help="millions")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; by default a temporary folder")
    parser.add_argument("--whole", action="store_true", help="of a rank: load as transformers does")
    given = parser.parse_args()
    if given.what == "rank":
        rank(given.folder, whole=given.whole)
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        {"load": load, "stall": stall, "files": files}[given.what](given, Path(folder))


def config(millions: float) -> LlamaConfig:
    """A Llama of about so many parameters."""
    width = 1024 if millions >= 200 else 512
    per_layer = 12 * width * width
    layers = max(1, round((millions * 1e6 - 2 * 32_000 * width) / per_layer))
    return LlamaConfig(
        vocab_size=32_000,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
    )


def load(given: argparse.Namespace, folder: Path) -> None:
    """Peak memory of each rank, over what it had before loading."""
    model = AutoModelForCausalLM.from_config(config(given.parameters), dtype=torch.bfloat16)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(folder, max_shard_size="500MB")
    del model
    print(f"{numbers / 1e6:.0f} M parameters: {numbers * 4 / 1e9:.2f} GB in fp32, stored in bf16")
    print("| ranks | how | shard GB | peak GB per rank, at most | seconds |\n| ---: | --- | ---: | ---: | ---: |")
    for ranks in given.ranks:
        for whole in (True, False):
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
            command += [__file__, "rank", "--folder", str(folder), *(["--whole"] if whole else [])]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode:
                sys.exit(ended.stderr)
            told = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
            peak, seconds = max(each["peak"] for each in told), max(each["seconds"] for each in told)
            how = "from_pretrained, then shards" if whole else "streamed into shards"
            print(
                f"| {ranks} | {how} | {numbers * 4 / ranks / 1e9:.2f} | {peak / 1e9:.2f} | {seconds:.1f} |", flush=True
            )


def rank(folder: Path, *, whole: bool) -> None:
    """One rank of :func:`load`."""
    settings = FsdpSettings(optimizer=ObjectConfig(name="torch.optim.AdamW", kwargs={}))
    with join() as world:
        before, began = memory("VmRSS"), time.monotonic()
        if whole:
            model = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation=IMPLEMENTATION
            )
            weights = None
        else:
            model, weights = open_model(ModelSpec(name=str(folder)))
        backend = FsdpBackend(model, settings, world, weights)
        told = {"peak": memory("VmHWM") - before, "seconds": time.monotonic() - began}
        world.barrier()
        print(json.dumps(told) + "\n", end="", flush=True)
        del backend
    leave(0)


def stall(given: argparse.Namespace, folder: Path) -> None:
    """Seconds that a step waits for a save, waited for and in the background, in turn."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(given.parameters), dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    trainee = Trainee(model=model, optimizer=optimizer)
    size = 12 * sum(parameter.numel() for parameter in model.parameters()) / 1e9
    managers = {}
    for name, background in (("waited for", False), ("in the background", True)):
        managers[name] = CheckpointManager(folder / name.replace(" ", "-"), run=RUN, in_background=background)
        managers[name].start()
    managers["in the background"].poll(trainee)
    stalls: dict[str, list[float]] = {name: [] for name in managers}
    durable: list[float] = []
    for step in range(1, given.rounds + 1):
        for name, manager in managers.items():
            os.sync()
            began = time.monotonic()
            manager.save(trainee, info(step), position(step))
            stalls[name].append(time.monotonic() - began)
            if name == "in the background":
                while not manager.poll(trainee):
                    time.sleep(0.01)
                durable.append(time.monotonic() - began)
            shutil.rmtree(folder / name.replace(" ", "-") / f"step_{step}")
    print(f"{size:.2f} GB; {given.rounds} rounds in turn")
    for name, seconds in stalls.items():
        print(f"{name}: " + ", ".join(f"{each:.2f}" for each in seconds) + f"; {median(seconds) / size:.3f} s per GB")
    print(f"on disk after: {median(durable) / size:.2f} s per GB")
    print(f"ratio: {median(stalls['in the background']) / median(stalls['waited for']):.3f}")
    for manager in managers.values():
        manager.close()


def files(given: argparse.Namespace, folder: Path) -> None:
    """Export and averaging beside copying a model, in turn."""
    torch.manual_seed(0)
    run = folder / "run"
    manager = CheckpointManager(run / "checkpoints", run=RUN)
    manager.start()
    for step in (1, 2, 3):
        model = AutoModelForCausalLM.from_config(config(given.parameters), dtype=torch.float32)
        manager.save(Trainee(model=model, optimizer=torch.optim.SGD(model.parameters())), info(step), position(step))
        del model
        gc.collect()
    manager.close()
    one = folder / "one"
    for step in (1, 2, 3):
        export(Export(training_folder=run, output=run / f"hf_model_step_{step}", step=str(step)))
    size = sum(path.stat().st_size for path in (run / "hf_model_step_1").glob("*.safetensors")) / 1e9
    actions: dict[str, Callable[[], object]] = {
        "cp": lambda: subprocess.run(["cp", "-r", run / "hf_model_step_1", one], check=True),
        "export": lambda: export(Export(training_folder=run, output=one, step="1")),
        "average of 3": lambda: average(Average(folder=run, steps=(1, 2, 3), output=one)),
    }
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(given.rounds):
        for name, action in actions.items():
            take_and_free_pages(folder / "pages", gigabytes=size)
            began = time.monotonic()
            action()
            if name == "cp":
                sync(one)
            seconds[name].append(time.monotonic() - began)
            shutil.rmtree(one)
    print(f"{size:.2f} GB in bf16, checkpoints in fp32; {given.rounds} rounds in turn; all until they are on disk")
    for name, each in seconds.items():
        ratio = median([a / b for a, b in zip(each, seconds["cp"], strict=True)])
        print(f"{name}: " + ", ".join(f"{value:.2f}" for value in each) + f"; {ratio:.2f}x cp")
    for name, words in {
        "export": (f"--training_folder={run}", f"--hf_ckpt_path={one}", "--step=1"),
        "average": (f"--checkpoint_dir={run}", "--steps=1,2,3", f"--output={one}"),
    }.items():
        print(f"{name} by itself: peak memory {peak_of_program(name, words):.2f} GB, of which imports {imported():.2f}")
        shutil.rmtree(one)


def take_and_free_pages(scratch: Path, *, gigabytes: float) -> None:
    """Write a file and remove it, so that this machine has the free memory that the next file needs.

    A virtual machine gives free memory back to its host after a while, and to get it anew takes longer than to write
    it. Who writes soon after another has removed its files would not pay for that, and who writes later would.
    """
    piece = b"." * 10**7
    with open(scratch, "wb") as file:
        for _ in range(round(1.2 * gigabytes * 1e9) // len(piece)):
            file.write(piece)
    os.sync()
    scratch.unlink()


def peak_of_program(name: str, words: Sequence[str]) -> float:
    """Largest resident set of a program of checkpoints that runs in a process of its own, GB."""
    return _peak(f"from skills_pipe.training.checkpoint.{name} import main; main(sys.argv[1:])", words)


def imported() -> float:
    """What a process has once it has imported what both programs need, GB."""
    return _peak("import skills_pipe.training.checkpoint.export", ())


def _peak(code: str, words: Sequence[str]) -> float:
    # What the parent has held would be counted in ru_maxrss.
    read = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; {read}", *words], check=True, capture_output=True, text=True
    )
    return int(done.stdout.splitlines()[-1]) * 1024 / 1e9


def sync(folder: Path) -> None:
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def info(step: int) -> TrainingInfo:
    return TrainingInfo(total_steps=step, epoch=0, step=step, consumed_samples=step, total_valid_tokens=step)


def position(step: int) -> DataPosition:
    return DataPosition(consumed_samples=step, seed=0, fingerprint="")


def memory(name: str) -> int:
    """Bytes, by the name of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def median(values: list[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main()
