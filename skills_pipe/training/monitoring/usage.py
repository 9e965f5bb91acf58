"""What a node uses now: memory of its host, use and memory of its GPUs."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import torch

from skills_pipe.training.monitoring.performance import GIB

_MEMORY = Path("/proc/meminfo")
_FIELD = re.compile(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", re.MULTILINE)


def host_memory() -> dict[str, float]:
    """GiB of the whole machine, whoever holds them: those that no program could have now, and all.

    Raises:
        OSError: this is not Linux.
        KeyError: Linux says it in other words.
    """
    found = {name: int(kibibytes) * 1024 / GIB for name, kibibytes in _FIELD.findall(_MEMORY.read_text())}
    return {"mem_gb": found["MemTotal"] - found["MemAvailable"], "mem_total_gb": found["MemTotal"]}


def gpus() -> dict[str, float]:
    """Of each GPU that this process sees: percent of the time in which it computed, GiB that all programs hold.

    The driver is asked, through nvidia-ml-py: CUDA itself would put a context of some hundred MB on each GPU. What it
    does not tell is left out, as the use of a part of a GPU (MIG).

    Raises:
        ModuleNotFoundError: nvidia-ml-py is not installed.
        Exception: the driver tells nothing at all.
    """
    readings = {"util": torch.cuda.utilization, "mem_gb": lambda index: torch.cuda.device_memory_used(index) / GIB}
    values, failures = {}, []
    for index, (name, reading) in product(range(torch.cuda.device_count()), readings.items()):
        try:
            values[f"gpu.{index}.{name}"] = float(reading(index))
        except ModuleNotFoundError:
            raise
        except Exception as error:  # of the driver: of any kind
            failures.append(error)
    if failures and not values:
        raise failures[0]
    return values
