"""A window of steps that is looked at closely: a trace by torch's profiler, or marks for Nsight Systems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch.profiler import ProfilerActivity, profile

from skills_pipe.artifacts.atomic import publish_file
from skills_pipe.errors import ConfigError
from skills_pipe.training.config.schedule import step_range
from skills_pipe.training.config.schema.logger import LoggerConfig
from skills_pipe.training.distributed import World

FOLDER = "profile"
"""Below ``logger.log_dir``."""


class _Recording(Protocol):
    def start(self) -> None: ...

    def stop(self) -> Path | None: ...


@dataclass
class StepProfiler:
    """Records the steps of a range; of those that are done in another job, nothing.

    Attributes:
        steps: counted from 1; empty for none.
        recording: what starts and stops.
        running: whether it has started.
    """

    steps: range
    recording: _Recording
    running: bool = False

    @classmethod
    def of(cls, config: LoggerConfig, world: World) -> StepProfiler | None:
        """What the configuration asks for, None for nothing.

        Raises:
            ConfigError: Nsight Systems is to be told by CUDA, and there is no GPU.
        """
        if config.profile_step_range is None:
            return None
        steps = step_range(config.profile_step_range)
        if config.profiler == "torch":
            name = f"steps_{steps.start}-{steps.stop - 1}.rank_{world.rank}.json"
            return cls(steps, _Trace(Path(config.log_dir, FOLDER, name), world.device))
        if world.device.type != "cuda":
            raise ConfigError(
                "Nsight Systems is told by CUDA what to record, and there is no GPU",
                where="logger.profiler=nsys",
                fix="set it to torch",
            )
        return cls(steps, _Marks())

    def before(self, step: int) -> None:
        """Step ``step`` is about to begin."""
        if step in self.steps and not self.running:
            self.recording.start()
            self.running = True

    def after(self, step: int) -> Path | None:
        """Step ``step`` is done; the file of the trace when it was the last of the range."""
        return self.close() if step + 1 not in self.steps else None

    def close(self) -> Path | None:
        """End a recording that is going on, and give its file."""
        if not self.running:
            return None
        self.running = False
        return self.recording.stop()


class _Trace:
    """A trace of operators and kernels for chrome://tracing and Perfetto."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
        self._profile = profile(activities=[ProfilerActivity.CPU, *gpu])

    def start(self) -> None:
        self._profile.start()

    def stop(self) -> Path:
        self._profile.stop()
        with publish_file(self._path) as temporary:
            self._profile.export_chrome_trace(str(temporary))
        return self._path


class _Marks:
    """Begin and end for ``nsys profile --capture-range=cudaProfilerApi``."""

    def start(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.profiler.start()

    def stop(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
