"""How fast a step was and what it took: rates, use of the hardware's arithmetic, memory."""

from __future__ import annotations

import math
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from skills_pipe.training.data.batches import RankBatch
from skills_pipe.training.models.flops import ModelFlops

GIB = 1 << 30

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
"""How Linux says the most that a process has held since its program began."""

_PEAKS = (
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("B200", 2250e12),
    ("A100", 312e12),
    ("A40", 149.7e12),
    ("L40S", 362e12),
    ("A10", 125e12),
    ("L4", 121e12),
)
"""Dense bfloat16 operations per second by NVIDIA's data sheets, by words of the device's name; the first one counts."""


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Turns counts and seconds of a step into metrics.

    Attributes:
        flops: of the model.
        ranks: that train together, each with a device of its own.
        device: of this rank.
        peak: operations per second that the device can do; None if nobody knows.
    """

    flops: ModelFlops
    ranks: int
    device: torch.device
    peak: float | None = None

    def metrics(self, batch: RankBatch, *, seconds: float, busy: float) -> dict[str, float]:
        """By name, of a step that took ``seconds``, of which the device was ``busy`` and not waiting for data."""
        work = self.flops.of_step(batch.lengths, batch.global_targets) / self.ranks
        return {
            "train/samples_per_second": batch.global_documents / seconds,
            "train/tokens_per_second_per_gpu": batch.global_tokens / seconds / self.ranks,
            "timing/train/valid_tokens_per_sec_per_gpu": batch.global_targets / seconds / self.ranks,
            "train/tflops_per_gpu": work / seconds / 1e12,
            **({"train/mfu": work / seconds / self.peak} if self.peak is not None else {}),
            "train/data_wait": 1.0 - busy / seconds,
            **memory(self.device),
        }


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Operations per second that ``device`` can do in ``precision``; None if nobody knows."""
    if device.type != "cuda" or precision != "bfloat16":
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """Dense bfloat16 operations per second of a device by its name; None if nobody knows."""
    words = name.replace("-", " ").split()
    fitting = (peak for part, peak in _PEAKS if all(word in words for word in part.split()))
    return next(fitting, None)


def measured_flops(device: torch.device, precision: str) -> float:
    """Operations per second of a product of square matrices in ``precision``, the best of a few: a few milliseconds."""
    on_gpu = device.type == "cuda"
    size = 4096 if on_gpu else 512
    factor = torch.ones(size, size, dtype=getattr(torch, precision), device=device)
    seconds = math.inf
    for _ in range(4):
        began = time.perf_counter()
        factor @ factor
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds = min(seconds, time.perf_counter() - began)
    return 2 * size**3 / seconds


def memory(device: torch.device) -> dict[str, float]:
    """What this process holds, in GiB: of the machine's memory at most so far, of its GPU's now and at most."""
    values = {"memory/process_peak_gib": process_peak() / GIB}
    if device.type == "cuda":
        values["memory/gpu_gib"] = torch.cuda.memory_allocated(device) / GIB
        values["memory/gpu_peak_gib"] = torch.cuda.max_memory_allocated(device) / GIB
    return values


def process_peak() -> int:
    """Bytes of the machine's memory that this process has held at most."""
    # Not what getrusage says where there is another: after exec it still counts the process that started this one.
    status = Path("/proc/self/status")
    found = _PEAK.search(status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
