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
from skills_pipe.training.monitoring.forecast import COMPARED_STEP, Forecast
from skills_pipe.training.monitoring.performance import peak_of, process_peak
from skills_pipe.training.sft import main
from tests.training.sft_arguments import arguments
from tests.training.tiny import ARCHITECTURES, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

CONFIG = load_config(None, ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"])
CPU, GPU = torch.device("cpu"), torch.device("cuda")
H100 = "NVIDIA H100 80GB HBM3"


def test_on_a_device_that_is_known_it_is_the_estimate_of_memory_and_of_time(monkeypatch):
    model = tiny_config("llama")
    shape = ModelShape.of(json.loads(model.to_json_string()))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: H100)

    found = Forecast.of(CONFIG, model, GPU, ranks=4)

    assert found.memory == estimate_memory(shape, CONFIG.policy, ranks=4)
    share = 0.4 * 4 * peak_of(H100)
    assert found.step_seconds == pytest.approx(seconds_per_step(shape, CONFIG.policy, flops=share))
    assert [name for name, _ in found.rows()] == ["memory of a GPU", "time of a step"]
    # The control: fewer ranks take longer, and each holds more.
    alone = Forecast.of(CONFIG, model, GPU, ranks=1)
    assert alone.step_seconds == pytest.approx(4 * found.step_seconds)
    assert alone.memory.weights > found.memory.weights


def test_what_lies_in_host_memory_is_told_apart_from_a_gpus_and_not_from_a_processs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: H100)
    offload = load_config(
        None, ["policy.model_name=/m", "data.train_data_path=r.jsonl", "policy.dtensor_cfg.cpu_offload=true"]
    )
    model = tiny_config("llama")

    gpu, host = (Forecast.of(offload, model, device, ranks=2) for device in (GPU, CPU))

    assert [name for name, _ in gpu.rows()] == ["memory of a GPU", "host memory of a rank", "time of a step"]
    assert [name for name, _ in host.rows()] == ["memory of a process"]
    assert host.memory == Forecast.of(CONFIG, model, CPU, ranks=2).memory


def test_after_the_first_steps_what_was_estimated_stands_beside_what_was_seen():
    known = Forecast(device=CPU, memory=None, step_seconds=1.5)
    assert known.beside(0.75).endswith("GiB; 0.75 seconds a step, estimated at most 1.5")
    # The control: nothing is said of what nobody estimated.
    assert known.beside(0.75).count("estimated") == 1
    assert replace(known, step_seconds=None).beside(0.75).count("estimated") == 0


def test_what_is_not_known_is_not_told():
    assert Forecast.of(CONFIG, PreTrainedConfig(), CPU, ranks=1).rows() == []


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_every_family_that_is_trained_has_an_estimate(family):
    rows = Forecast.of(CONFIG, tiny_config(family), CPU, ranks=1).rows()
    assert [name for name, _ in rows] == ["memory of a process"]


def test_a_run_shows_it_first_and_beside_it_what_it_took(tiny_model_folder, chat_data, tmp_path, capsys):
    extra = ["sft.max_num_steps=4", "checkpointing.enabled=false", "policy.precision=float32"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 0
    told = capsys.readouterr().out

    before, after = told.index("memory of a process"), told.index("seen on rank 0")
    assert before < after
    estimated = re.search(r"about ([\d.]+) GiB", told[before:]).group(1)
    seen = re.search(r"seen on rank 0: ([\d.]+) GiB, estimated ([\d.]+); ([\d.e-]+) seconds a step", told)
    assert seen and seen.group(2) == estimated
    assert 0 < float(seen.group(1)) <= process_peak() / GIB + 0.1
    assert float(seen.group(3)) > 0


def test_a_run_that_ends_before_tells_no_comparison(tiny_model_folder, chat_data, tmp_path, capsys):
    extra = [f"sft.max_num_steps={COMPARED_STEP - 1}", "checkpointing.enabled=false", "policy.precision=float32"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 0

    assert "seen on rank 0" not in capsys.readouterr().out
