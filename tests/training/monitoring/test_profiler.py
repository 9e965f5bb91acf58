"""Steps that are profiled in a real training, and what is left of them."""

import json
import re

import pytest
import torch

from skills_pipe.errors import ConfigError
from skills_pipe.training.distributed import World
from skills_pipe.training.monitoring.profiler import StepProfiler
from skills_pipe.training.sft import main
from tests.training.monitoring.test_metrics import logger_config
from tests.training.sft_arguments import arguments

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

CPU = World(rank=0, size=1, device=torch.device("cpu"))


class Recorder:
    def __init__(self):
        self.calls = []

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        (range(1, 8), {2: "start", 4: "stop"}),
        (range(4, 8), {3: "start", 4: "stop"}),
        (range(5, 8), {}),
        (range(1, 3), {}),
    ],
)
def test_the_steps_of_the_range_are_recorded_wherever_a_job_begins(done, expected):
    profiler, seen = StepProfiler(range(3, 5), Recorder()), {}
    for step in done:
        for moment, call in ((step - 1, profiler.before), (step, profiler.after)):
            before = len(profiler.recording.calls)
            call(step)
            for name in profiler.recording.calls[before:]:
                seen[moment] = name

    assert seen == expected


def test_a_trace_has_the_operators_of_its_steps_only(tiny_model_folder, chat_data, tmp_path, capsys):
    extra = ["logger.profile_step_range=2:4", "sft.max_num_steps=5", "checkpointing.enabled=false"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 0

    folder = tmp_path / "training-logs" / "profile"
    assert [path.name for path in folder.iterdir()] == ["steps_2-3.rank_0.json"]
    events = json.loads((folder / "steps_2-3.rank_0.json").read_text())["traceEvents"]
    assert len([event for event in events if re.fullmatch(r"Optimizer\.step#AdamW\.step", event["name"])]) == 2
    assert f"note: profile written: {folder}/steps_2-3.rank_0.json" in capsys.readouterr().out


def test_a_job_that_ends_within_the_range_leaves_its_part(tiny_model_folder, chat_data, tmp_path):
    extra = ["logger.profile_step_range=2:9", "checkpointing.stop_after_steps=2"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 75
    assert json.loads((tmp_path / "training-logs" / "profile" / "steps_2-8.rank_0.json").read_text())["traceEvents"]


def test_without_a_range_nothing_is_recorded(tmp_path):
    assert StepProfiler.of(logger_config(tmp_path), CPU) is None


def test_nsight_systems_needs_a_gpu(tmp_path):
    wanted = logger_config(tmp_path, "logger.profile_step_range=2:4", "logger.profiler=nsys")
    with pytest.raises(ConfigError, match=r"there is no GPU \(logger\.profiler=nsys\): set it to torch"):
        StepProfiler.of(wanted, CPU)
