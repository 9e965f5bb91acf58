"""What a run is said to take before its first step, and beside it what it took."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedConfig

from skills_pipe.training.config import load_config
from skills_pipe.training.config.estimate import GIB, ModelShape, estimate_memory, seconds_per_step
from skills_pipe.training.config.estimate.operations import operations_per_step
from skills_pipe.training.monitoring.forecast import COMPARED_STEP, Forecast
from skills_pipe.training.monitoring.performance import measured_flops, peak_flops, peak_of, process_peak
from skills_pipe.training.sft import main
from tests.training.sft_arguments import arguments
from tests.training.tiny import ARCHITECTURES, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

CONFIG = load_config(None, ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"])
CPU, GPU = torch.device("cpu"), torch.device("cuda")
TIMES = ["time of a step", "time of all steps"]
H100 = "NVIDIA H100 80GB HBM3"


def test_on_a_device_that_is_known_it_is_the_estimate_of_memory_and_of_time(monkeypatch):
    model = tiny_config("llama")
    shape = ModelShape.of(json.loads(model.to_json_string()))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: H100)

    found = Forecast.of(CONFIG, model, GPU, ranks=4, operations=1e15)

    assert found.memory == estimate_memory(shape, CONFIG.policy, ranks=4)
    share = 0.4 * 4 * peak_of(H100)
    assert found.step_seconds == pytest.approx(1e15 / share)
    assert found.longest == pytest.approx(seconds_per_step(shape, CONFIG.policy, flops=share))
    assert [name for name, _ in found.rows(100)] == ["memory of a GPU", "time of a step", "time of all steps"]
    assert found.rows(100)[2] == ("time of all steps", "about 1:03")
    # The control: fewer ranks take longer, and each holds more.
    alone = Forecast.of(CONFIG, model, GPU, ranks=1, operations=1e15)
    assert alone.step_seconds == pytest.approx(4 * found.step_seconds)
    assert alone.longest == pytest.approx(4 * found.longest)
    assert alone.memory.weights > found.memory.weights


def test_what_lies_in_host_memory_is_told_apart_from_a_gpus_and_not_from_a_processs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: H100)
    offload = load_config(
        None, ["policy.model_name=/m", "data.train_data_path=r.jsonl", "policy.dtensor_cfg.cpu_offload=true"]
    )
    model = tiny_config("llama")

    gpu, host = (Forecast.of(offload, model, device, ranks=2, operations=1e9) for device in (GPU, CPU))

    assert [name for name, _ in gpu.rows(1)][:2] == ["memory of a GPU", "host memory of a rank"]
    assert [name for name, _ in host.rows(1)] == ["memory of a process", *TIMES]
    assert host.memory == Forecast.of(CONFIG, model, CPU, ranks=2, operations=1e9).memory


def test_after_the_first_steps_what_was_estimated_stands_beside_what_was_seen():
    memory = estimate_memory(ModelShape.of(tiny_config("llama").to_dict()), CONFIG.policy, ranks=1)
    known = Forecast(device=CPU, memory=memory, step_seconds=1.5, longest=3.0)
    assert known.beside(0.75).endswith(f", estimated {memory.total / GIB:.1f}; 0.75 seconds a step, estimated 1.5")
    # The control: nothing is said of what nobody estimated.
    assert replace(known, memory=None).beside(0.75).count("estimated") == 1


def test_of_a_family_that_is_not_known_there_is_the_time_of_its_first_step_alone():
    found = Forecast.of(CONFIG, PreTrainedConfig(), CPU, ranks=1, operations=1e9)
    assert [name for name, _ in found.rows(1)] == TIMES
    assert "longest" not in dict(found.rows(1))["time of a step"]


def test_a_device_whose_speed_is_not_known_is_measured():
    assert peak_flops(CPU, "float32") is None and measured_flops(CPU, "float32") > 0
    model = tiny_config("llama")
    found = Forecast.of(CONFIG, model, CPU, ranks=1, operations=1e9)
    most = operations_per_step(ModelShape.of(model.to_dict()), CONFIG.policy)
    assert found.longest / found.step_seconds == pytest.approx(most / 1e9)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_family_that_is_trained_has_an_estimate(family):
    rows = Forecast.of(CONFIG, tiny_config(family), CPU, ranks=1, operations=1e9).rows(1)
    assert [name for name, _ in rows] == ["memory of a process", *TIMES]
    assert "longest" in dict(rows)["time of a step"]


def test_a_run_shows_it_first_and_beside_it_what_it_took(tiny_model_folder, chat_data, tmp_path, capsys):
    extra = ["sft.max_num_steps=4", "checkpointing.enabled=false", "policy.precision=float32"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 0
    told = capsys.readouterr().out

    before, after = told.index("memory of a process"), told.index("seen on rank 0")
    assert before < after
    estimated = re.search(r"about ([\d.]+) GiB", told[before:]).group(1)
    seen = re.search(r"seen on rank 0: ([\d.]+) GiB, estimated ([\d.]+); ([\d.e-]+) seconds a step, estimated ", told)
    assert seen and seen.group(2) == estimated
    assert 0 < float(seen.group(1)) <= process_peak() / GIB + 0.1
    assert float(seen.group(3)) > 0


def test_a_run_that_ends_before_tells_no_comparison(tiny_model_folder, chat_data, tmp_path, capsys):
    extra = [f"sft.max_num_steps={COMPARED_STEP - 1}", "checkpointing.enabled=false", "policy.precision=float32"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 0

    assert "seen on rank 0" not in capsys.readouterr().out
