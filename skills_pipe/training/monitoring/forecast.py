"""What a run will take, told before its first step, and what it took, told beside it after the first steps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedConfig

from skills_pipe.artifacts.units import duration
from skills_pipe.training.config import TrainingConfig
from skills_pipe.training.config.estimate import GIB, MemoryEstimate, ModelShape, estimate_memory, seconds_per_step
from skills_pipe.training.monitoring.performance import measured_flops, peak_flops, process_peak

COMPARED_STEP = 3
"""Step of a job after which it is told: the first two allocate and compile what later ones reuse."""

_UTILISATION = 0.4
"""Share of a device's peak that training usually reaches."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Of one rank.

    Attributes:
        device: it computes there.
        memory: None where the model's family or the optimizer is not known.
        step_seconds: of a step like the first one, by its arithmetic.
        longest: of a step whose documents all have the greatest length; None where the model's family is not known.
    """

    device: torch.device
    memory: MemoryEstimate | None
    step_seconds: float
    longest: float | None

    @classmethod
    def of(
        cls, config: TrainingConfig, model: PreTrainedConfig, device: torch.device, *, ranks: int, operations: float
    ) -> Forecast:
        """By arithmetic on the model's configuration.

        Args:
            config: of the run.
            model: of the model.
            device: of this rank; one whose speed is not known is measured.
            ranks: that train together.
            operations: of the first step, on all ranks.
        """
        policy = config.policy
        peak = peak_flops(device, policy.precision) or measured_flops(device, policy.precision)
        flops = _UTILISATION * peak * ranks
        shape = ModelShape.of(model.to_dict())
        if shape is None:
            return cls(device=device, memory=None, step_seconds=operations / flops, longest=None)
        if device.type == "cpu":
            # Its memory is the host's.
            policy = replace(policy, dtensor_cfg=replace(policy.dtensor_cfg, cpu_offload=False))
        return cls(
            device=device,
            memory=estimate_memory(shape, policy, ranks=ranks, averaged=config.sft.ema_decay is not None),
            step_seconds=operations / flops,
            longest=seconds_per_step(shape, policy, flops=flops),
        )

    def rows(self, steps: int) -> list[tuple[str, str]]:
        """For the table before the first step of those that are left."""
        where = "GPU" if self.device.type == "cuda" else "process"
        rows = []
        if self.memory is not None:
            rows.append((f"memory of a {where}", f"about {self.memory.total / GIB:.1f} GiB: {self.memory}"))
            if self.memory.host:
                rows.append(
                    (
                        "host memory of a rank",
                        f"about {self.memory.host / GIB:.1f} GiB of weights, gradients, optimizer",
                    )
                )
        most = f", with the longest documents {_time(self.longest)}" if self.longest is not None else ""
        rows.append(("time of a step", f"about {_time(self.step_seconds)} by its arithmetic{most}"))
        rows.append(("time of all steps", f"about {_time(steps * self.step_seconds)}"))
        return rows

    def beside(self, seconds: float) -> str:
        """The sentence after the first steps, of which the last took ``seconds``."""
        seen = torch.cuda.max_memory_reserved(self.device) if self.device.type == "cuda" else process_peak()
        memory = f", estimated {self.memory.total / GIB:.1f}" if self.memory is not None else ""
        time = f"{seconds:.2g} seconds a step, estimated {self.step_seconds:.2g}"
        return f"seen on rank 0: {seen / GIB:.1f} GiB{memory}; {time}"


def _time(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 60 else duration(seconds)
