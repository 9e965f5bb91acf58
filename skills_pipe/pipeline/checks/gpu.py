"""What is known about types of GPUs."""

from __future__ import annotations

from dataclasses import dataclass

_MEMORY_GIB = {
    "a100": 40,
    "a100_80gb": 80,
    "h100": 80,
    "h200": 141,
    "b200": 180,
    "gh200": 96,
    "a40": 48,
    "l40": 48,
    "l40s": 48,
    "a6000": 48,
    "a30": 24,
    "a10": 24,
    "l4": 24,
    "v100": 16,
    "t4": 16,
}
"""By the name that Slurm's ``Gres`` usually has for a type of GPU; of two sizes the smaller one."""

_PEAK_TFLOPS = {"a100": 312, "a100_80gb": 312, "h100": 989, "h200": 989, "gh200": 989, "b200": 2250, "a40": 150}
"""Dense bf16 peak, by NVIDIA's data sheets."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """The GPUs of a job.

    Attributes:
        type: ``h100``, as Slurm names it; None if it does not.
        gib: memory of one, in GiB, by the cluster configuration.
    """

    type: str | None = None
    gib: float | None = None

    @property
    def memory(self) -> float | None:
        """Memory of one in GiB; None if nobody knows."""
        return self.gib if self.gib is not None else _MEMORY_GIB.get((self.type or "").lower())

    @property
    def peak_tflops(self) -> float | None:
        """Operations per second, in 10^12; None if nobody knows."""
        return _PEAK_TFLOPS.get((self.type or "").lower())
