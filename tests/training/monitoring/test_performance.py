import subprocess
import sys

import pytest
import torch

from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.models.flops import ModelFlops
from skills_pipe.training.monitoring.performance import Performance, memory, peak_flops, peak_of
from tests.training.backends.scenario import BATCH, PACKED, dataset
from tests.training.launch import environment
from tests.training.tiny import tiny_model

CPU = torch.device("cpu")


def test_rates_are_counts_of_the_whole_batch_over_seconds_and_ranks():
    data, flops = dataset(), ModelFlops.of(tiny_model())
    batch = split_batch(data, range(BATCH), PACKED, 1, 2)
    performance = Performance(flops=flops, ranks=2, device=CPU, peak=1e9)
    found = performance.metrics(batch, seconds=4.0, busy=3.0)

    tokens, targets = int(data.lengths[:BATCH].sum()), int(data.targets[:BATCH].sum())
    work = flops.of_step(data.lengths[:BATCH], targets)
    assert found["train/samples_per_second"] == BATCH / 4
    assert found["train/tokens_per_second_per_gpu"] == tokens / 8
    assert found["timing/train/valid_tokens_per_sec_per_gpu"] == targets / 8
    assert found["train/tflops_per_gpu"] == pytest.approx(work / 8 / 1e12)
    assert found["train/mfu"] == pytest.approx(work / 8 / 1e9)
    assert found["train/data_wait"] == 0.25


def test_without_a_known_peak_there_is_no_share_of_it():
    batch = split_batch(dataset(), range(BATCH), PACKED, 0, 1)
    performance = Performance(flops=ModelFlops.of(tiny_model()), ranks=1, device=CPU)

    assert "train/mfu" not in performance.metrics(batch, seconds=1.0, busy=1.0)
    assert peak_flops(CPU, "bfloat16") is None


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", None),
        ("NVIDIA A1000", None),
    ],
)
def test_peaks_by_the_names_of_devices(name, peak):
    assert peak_of(name) == peak


def test_memory_is_what_the_process_has_held():
    held = torch.ones(700 * 2**20 // 4)
    found = memory(CPU)

    assert found.keys() == {"memory/process_peak_gib"}
    assert held.nbytes / 2**30 < found["memory/process_peak_gib"] < 64


def test_memory_of_who_started_the_process_is_not_counted():
    program = "import resource\nfrom skills_pipe.training.monitoring.performance import process_peak\n"
    program += "print(process_peak(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)"
    held = bytearray(b"x") * 900_000_000
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True
    )
    peak, with_parent = map(int, done.stdout.split())

    assert 0 < peak < len(held) < with_parent
