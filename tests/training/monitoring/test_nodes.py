"""What nodes use, measured beside a real training and brought to every log."""

import dataclasses
import re
import struct
import threading
from pathlib import Path

import psutil
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from skills_pipe.artifacts.metrics import NODES, NODES_TIME, read_metrics
from skills_pipe.training.carry_out import carry_out
from skills_pipe.training.config import load_config
from skills_pipe.training.distributed import World
from skills_pipe.training.monitoring import nodes, usage
from skills_pipe.training.monitoring.metrics import MetricsLogger
from skills_pipe.training.monitoring.nodes import NodeMonitor
from skills_pipe.training.monitoring.run_ids import RunIds
from skills_pipe.training.monitoring.sampler import Measured, Sample, Sampler
from skills_pipe.training.monitoring.usage import host_memory
from skills_pipe.training.setup import build_run, load_parts
from skills_pipe.training.sft import main
from skills_pipe.training.signals import SignalListener
from tests.pipeline.programs import until
from tests.training.monitoring.test_metrics import logger_config, quiet
from tests.training.monitoring.test_trackers import alone as alone
from tests.training.monitoring.test_trackers import config
from tests.training.outputs import assert_equal_bits, logged, state
from tests.training.sft_arguments import STEPS, arguments

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

ON = ["logger.monitor_gpus=true", "logger.gpu_monitoring.collection_interval=0.01"]
OFTEN = [*ON, "logger.gpu_monitoring.flush_interval=1e-9"]
GIB = 2**30


def lines(output):
    """Those of nodes."""
    return [line for line in read_metrics(output / "training-logs" / "metrics.jsonl") if NODES_TIME in line]


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("sampler")]


# What is measured


def test_memory_of_the_host_is_what_another_reading_says():
    before, found, after = psutil.virtual_memory(), host_memory(), psutil.virtual_memory()
    assert found["mem_total_gb"] == before.total / GIB
    used = sorted((other.total - other.available) / GIB for other in (before, after))
    # Other programs of this machine go on in between.
    assert used[0] - 0.5 <= found["mem_gb"] <= used[1] + 0.5


def test_gpus_are_asked_one_by_one(monkeypatch):
    """By the names of torch's functions; the driver's answers are not seen here."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "utilization", lambda index: 40 + index)
    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda index: (index + 1) * GIB)
    assert usage.gpus() == {"gpu.0.util": 40.0, "gpu.0.mem_gb": 1.0, "gpu.1.util": 41.0, "gpu.1.mem_gb": 2.0}


def test_what_the_driver_does_not_tell_of_a_gpu_hides_nothing_else(monkeypatch):
    def untold(index):
        raise RuntimeError("not supported")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "utilization", untold)
    monkeypatch.setattr(torch.cuda, "device_memory_used", lambda index: (index + 1) * GIB)
    assert usage.gpus() == {"gpu.0.mem_gb": 1.0, "gpu.1.mem_gb": 2.0}

    monkeypatch.setattr(torch.cuda, "device_memory_used", untold)
    with pytest.raises(RuntimeError, match="not supported"):
        usage.gpus()


# A real training


@pytest.fixture(scope="module")
def plain(tiny_model_folder, chat_data, tmp_path_factory):
    """Output of a training that measures nothing."""
    output = tmp_path_factory.mktemp("plain")
    assert main(arguments(tiny_model_folder, chat_data, output)) == 0
    return output


def test_a_training_is_measured_and_has_the_same_bits(plain, tiny_model_folder, chat_data, tmp_path):
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *OFTEN)) == 0
    found = lines(tmp_path)
    assert {name for line in found for name in line if name.startswith(NODES)} == {
        *("ray/node.0.mem_gb", "ray/node.0.mem_total_gb", NODES_TIME)
    }
    total = psutil.virtual_memory().total / GIB
    assert all(line["ray/node.0.mem_total_gb"] == total for line in found)
    assert all(0 < line["ray/node.0.mem_gb"] < total for line in found)
    assert len({line["step"] for line in found}) > 2, "they come while it trains"
    assert [line["time"] for line in found] == sorted(line["time"] for line in found)
    assert threads() == []
    assert_equal_bits(state(tmp_path, STEPS), state(plain, STEPS))
    assert logged(tmp_path, "train/loss") == logged(plain, "train/loss")


def test_nothing_is_measured_unless_it_is_asked_for(plain):
    assert lines(plain) == []
    assert NodeMonitor.of(quiet(plain), World(rank=0, size=1, device=torch.device("cpu"))) is None


def test_what_was_measured_since_the_last_gathering_comes_at_the_end(tiny_model_folder, chat_data, tmp_path):
    """With nothing due before, all of it comes after the last step."""
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *ON, "sft.max_num_steps=3")) == 0
    assert {line["step"] for line in lines(tmp_path)} == {3}


def test_a_training_that_fails_still_shows_what_its_first_node_used(tiny_model_folder, chat_data, tmp_path):
    extra = [*ON, "policy.lr=1e30", "sft.max_nonfinite_steps=0"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 1
    assert lines(tmp_path)
    assert threads() == []


def test_a_measurement_that_fails_is_told_once_and_the_others_go_on(tiny_model_folder, chat_data, tmp_path, capsys):
    def failing():
        raise OSError("no such file: /proc/meminfo")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(nodes, "host_memory", failing)
        assert main(arguments(tiny_model_folder, chat_data, tmp_path, *OFTEN)) == 0
    told = capsys.readouterr().out
    assert told.count("note: memory of ray/node.0 cannot be measured: OSError: no such file: /proc/meminfo") == 1
    assert lines(tmp_path) == []
    assert len(logged(tmp_path, "train/loss")) == STEPS


def test_one_of_two_readings_may_fail():
    def failing():
        raise RuntimeError("the driver is gone")

    measured, enough = [], threading.Event()

    def working():
        measured.append(1)
        if len(measured) == 3:
            enough.set()
        return {"b": 1.0}

    sampler = Sampler({"a": failing, "b": working}, interval=0.001, prefix="n")
    sampler.start()
    assert enough.wait(60)
    sampler.close()
    found = sampler.take()
    assert found.notes == ["a of n cannot be measured: RuntimeError: the driver is gone"]
    assert [sample.values for sample in found.samples] == [{"n.b": 1.0}] * len(measured)
    assert sampler.take() == Measured()


# Several nodes


def job(world, *, argv, local):
    """A training on a rank that a launcher of several nodes would have started; how often it measured its node."""
    node, asked = local[: world.rank + 1].count(0) - 1, []

    def memory():
        asked.append(1)
        # As much memory as the node's number: who is who shows in the log.
        return {"mem_gb": float(node), "mem_total_gb": host_memory()["mem_total_gb"]}

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("LOCAL_RANK", str(local[world.rank]))
        patched.setattr(nodes, "host_memory", memory)
        loaded = load_config(None, argv)
        parts = load_parts(loaded, world)
        carry_out(build_run(loaded, parts, world, SignalListener()), parts)
    return len(asked)


@pytest.mark.parametrize(
    ("ranks", "local"), [("two_ranks", (0, 0)), ("two_ranks", (0, 1)), ("four_ranks", (0, 1, 0, 1))]
)
def test_each_node_is_measured_by_its_first_rank(request, tiny_model_folder, chat_data, tmp_path, ranks, local):
    argv = arguments(tiny_model_folder, chat_data, tmp_path, *OFTEN, "checkpointing.enabled=false")
    asked = request.getfixturevalue(ranks)(job, argv=argv, local=local)
    assert [count > 0 for count in asked] == [rank == 0 for rank in local]
    found = lines(tmp_path)
    total = psutil.virtual_memory().total / GIB
    for node in range(local.count(0)):
        own = [line for line in found if f"ray/node.{node}.mem_gb" in line]
        assert len(own) > 2
        assert all(line[f"ray/node.{node}.mem_gb"] == node for line in own)
        assert all(line[f"ray/node.{node}.mem_total_gb"] == total for line in own)
    assert not [name for line in found for name in line if name.startswith(f"ray/node.{local.count(0)}")]


def test_two_nodes_have_the_losses_of_ranks_that_measure_nothing(two_ranks, tiny_model_folder, chat_data, tmp_path):
    for name, extra in (("on", OFTEN), ("off", [])):
        argv = arguments(tiny_model_folder, chat_data, tmp_path / name, *extra)
        two_ranks(job, argv=argv, local=(0, 0))
    assert lines(tmp_path / "on") and not lines(tmp_path / "off")
    assert logged(tmp_path / "on", "train/loss") == logged(tmp_path / "off", "train/loss")
    assert_equal_bits(state(tmp_path / "on", STEPS), state(tmp_path / "off", STEPS))


# Where it goes


def two_jobs(settings):
    """Samples of two jobs of a chain, the second of which goes on from step 2; and when the first began."""
    for steps, resumed, offsets in ((range(1, 4), 0, (4, 15)), (range(3, 6), 2, (60, 71))):
        metrics = MetricsLogger(settings, total_steps=5, resumed_step=resumed)
        if not resumed:
            began = metrics._began
        assert abs(metrics._began - began) < 1
        samples = [Sample(time=began + offset + 0.5, values={"ray/node.0.mem_gb": float(offset)}) for offset in offsets]
        for step in steps:
            metrics.log(step, {"train/loss": 1 / step})
            if step == steps[1]:
                metrics.log_nodes(Measured(samples=samples))
        metrics.close()


EXPECTED = [(4, 4.0), (15, 15.0), (60, 60.0), (71, 71.0)]
"""Seconds go on through the jobs, and nothing of the first job is hidden."""


def test_lines_of_the_file_have_the_step_of_their_moment(tmp_path):
    two_jobs(quiet(tmp_path))
    found = [line for line in read_metrics(tmp_path / "metrics.jsonl") if NODES_TIME in line]
    assert [(line["step"], line[NODES_TIME], line["ray/node.0.mem_gb"]) for line in found] == [
        *((2, 4, 4.0), (2, 15, 15.0), (4, 60, 60.0), (4, 71, 71.0))
    ]


def test_tensorboard_has_them_by_seconds(tmp_path):
    two_jobs(logger_config(tmp_path))
    events = EventAccumulator(str(tmp_path / "tensorboard" / "nodes"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("ray/node.0.mem_gb")] == EXPECTED
    steps = EventAccumulator(str(tmp_path / "tensorboard"))
    steps.Reload()
    assert [event.step for event in steps.Scalars("train/loss")] == [1, 2, 3, 4, 5]


def test_mlflow_has_them_by_seconds(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "store").as_uri()
    two_jobs(config(tmp_path / "logs", "mlflow", tracking_uri=address))
    client = mlflow.MlflowClient(tracking_uri=address)
    history = client.get_metric_history(RunIds(tmp_path / "logs").kept("mlflow"), "ray/node.0.mem_gb")
    assert [(point.step, point.value) for point in history] == EXPECTED


def records(folder):
    """What Weights & Biases wrote without a connection, job by job: a log of LevelDB after seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        data, place, whole = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if (left := 32768 - place % 32768) < 7:
                place += left
                continue
            _, length, kind = struct.unpack_from("<IHB", data, place)
            if place + 7 + length > len(data):
                break  # it is being written
            whole += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last part of one
                yield Record.FromString(whole)
                whole = b""


def test_weights_and_biases_has_them_by_seconds(tmp_path):
    pytest.importorskip("wandb")
    two_jobs(config(tmp_path / "logs", "wandb"))
    # A process of theirs writes what it was sent, also after the run has ended here.

    def ended():
        return sum(record.HasField("exit") for record in records(tmp_path / "logs" / "wandb")) == 2

    until(ended, "both runs are written to their ends")
    written = list(records(tmp_path / "logs" / "wandb"))
    axes = {record.metric.name: record.metric.step_metric for record in written if record.HasField("metric")}
    assert axes["ray/node.0.mem_gb"] == NODES_TIME
    rows = [
        {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
        for record in written
        if record.HasField("history")
    ]
    found = [row for row in rows if "ray/node.0.mem_gb" in row]
    assert [(int(row[NODES_TIME]), float(row["ray/node.0.mem_gb"])) for row in found] == EXPECTED


def test_swanlab_has_them_by_seconds(tmp_path, monkeypatch):
    swanlab = pytest.importorskip("swanlab")
    really, calls = swanlab.log, []

    def log(values, step):
        calls.append((step, values))
        return really(values, step=step)

    monkeypatch.setattr(swanlab, "log", log)
    two_jobs(config(tmp_path / "logs", "swanlab"))
    found = [(step, values["ray/node.0.mem_gb"]) for step, values in calls if "ray/node.0.mem_gb" in values]
    assert found == EXPECTED


def test_a_service_that_takes_nothing_of_nodes_is_told_once_and_ends_nothing(tmp_path, monkeypatch, capsys):
    settings = dataclasses.replace(quiet(tmp_path), tensorboard_enabled=True)
    metrics = MetricsLogger(settings, total_steps=5)

    def failing(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", failing)
    samples = [Sample(time=metrics._began + offset, values={"ray/node.0.mem_gb": 1.0}) for offset in (1, 2)]
    metrics.log_nodes(Measured(samples=samples))
    metrics.close()
    assert len(re.findall(r"TensorBoard takes nothing from second 1 on: no space left", capsys.readouterr().out)) == 1
    assert len(Path(tmp_path, "metrics.jsonl").read_text().splitlines()) == 2
