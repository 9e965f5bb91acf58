import dataclasses
import json
import os
import subprocess
import sys
from types import ModuleType

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from skills_pipe.artifacts.metrics import read_metrics
from skills_pipe.artifacts.progress import Progress
from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config
from skills_pipe.training.monitoring.metrics import MetricsLogger


@pytest.fixture(autouse=True)
def _first_event_file(monkeypatch):
    """Event files of one second are read in the order of a counter's digits, and 10 would come before 9.

    Trainings are processes of their own, which count from 0 and take more than a second.
    """
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def logger_config(folder, *overrides):
    return load_config(
        None, ["policy.model_name=x", "data.train_data_path=x.jsonl", f"logger.log_dir={folder}", *overrides]
    ).logger


def quiet(folder):
    return logger_config(folder, "logger.tensorboard_enabled=false")


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def log_steps(metrics, steps):
    for step in steps:
        metrics.log(step, {"train/loss": 1 / step, "train/lr": 1e-5})


def test_every_call_is_one_line_with_its_step_and_time(tmp_path):
    metrics = MetricsLogger(quiet(tmp_path), total_steps=2)
    metrics.log(1, {"train/loss": 2.5, "train/global_valid_toks": 7})
    metrics.log(1, {"validation/val_loss": 2.0})
    first, second = lines_of(tmp_path)  # before close: a killed run has its lines
    metrics.close()
    assert first.pop("time") <= second.pop("time")
    assert first == {"step": 1, "train/loss": 2.5, "train/global_valid_toks": 7.0}
    assert second == {"step": 1, "validation/val_loss": 2.0}


def test_a_value_that_is_not_finite_is_null_so_that_any_json_reader_takes_the_line(tmp_path):
    metrics = MetricsLogger(quiet(tmp_path), total_steps=1)
    metrics.log(1, {"train/loss": float("nan"), "train/grad_norm": float("inf")})
    metrics.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (line["train/loss"], line["train/grad_norm"]) == (None, None)


def test_a_resumed_run_drops_the_lines_of_steps_that_it_does_again(tmp_path):
    metrics = MetricsLogger(quiet(tmp_path), total_steps=8)
    log_steps(metrics, range(1, 6))
    metrics.close()
    resumed = MetricsLogger(quiet(tmp_path), total_steps=8, resumed_step=3)
    log_steps(resumed, range(4, 9))
    resumed.close()
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_run_that_starts_anew_keeps_nothing_of_the_old_one(tmp_path):
    metrics = MetricsLogger(quiet(tmp_path), total_steps=8)
    metrics.log(0, {"validation/val_loss": 3.0})
    log_steps(metrics, range(1, 3))
    metrics.close()
    MetricsLogger(quiet(tmp_path), total_steps=8).close()
    assert lines_of(tmp_path) == []


def test_a_line_cut_short_by_a_kill_costs_that_line_only(tmp_path):
    metrics = MetricsLogger(quiet(tmp_path), total_steps=8)
    log_steps(metrics, range(1, 4))
    metrics.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-10])
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    resumed = MetricsLogger(quiet(tmp_path), total_steps=8, resumed_step=2)
    log_steps(resumed, [3])
    resumed.close()
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2, 3]


def scalars(folder, name):
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, round(event.value, 6)) for event in events.Scalars(name)]


def test_tensorboard_has_the_same_values_once_after_a_resume(tmp_path):
    metrics = MetricsLogger(logger_config(tmp_path), total_steps=5)
    log_steps(metrics, range(1, 5))
    metrics.close()
    assert scalars(tmp_path, "train/loss") == [(1, 1.0), (2, 0.5), (3, 0.333333), (4, 0.25)]
    resumed = MetricsLogger(logger_config(tmp_path), total_steps=5, resumed_step=2)
    for step in (3, 4, 5):
        resumed.log(step, {"train/loss": 9.0})
    resumed.close()
    assert scalars(tmp_path, "train/loss") == [(1, 1.0), (2, 0.5), (3, 9.0), (4, 9.0), (5, 9.0)]


def test_tensorboard_hides_a_run_that_was_killed_before_its_first_checkpoint(tmp_path):
    for value in (1.0, 9.0):
        metrics = MetricsLogger(logger_config(tmp_path), total_steps=3)
        metrics.log(0, {"validation/val_loss": value})
        metrics.log(1, {"train/loss": value})
        metrics.close()
    assert scalars(tmp_path, "validation/val_loss") == [(0, 9.0)]
    assert scalars(tmp_path, "train/loss") == [(1, 9.0)]


def test_missing_packages_are_all_named_before_anything_starts(tmp_path):
    config = quiet(tmp_path)
    # Modules that no machine has, in the place of the two services.
    services = {name: f"{name}_enabled" for name in ("wandb", "swanlab")}
    wanted = dataclasses.replace(config, **dict.fromkeys(services.values(), True))
    hidden = dict.fromkeys(services)
    before = {name: sys.modules.get(name) for name in services}
    sys.modules.update(hidden)
    try:
        with pytest.raises(ConfigError) as caught:
            MetricsLogger(wanted, total_steps=1)
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None) if module is None else sys.modules.update({name: module})
    message = str(caught.value)
    assert "wandb and swanlab not installed (logger.wandb_enabled=true, logger.swanlab_enabled=true)" in message
    assert "pip install wandb swanlab, or set the key to false" in message
    assert not (tmp_path / "metrics.jsonl").exists()


def test_what_nobody_asked_for_is_left_out_where_it_cannot_log_in(tmp_path, monkeypatch, capsys):
    config = quiet(tmp_path)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    wanted = dataclasses.replace(config, wandb_enabled=True, wandb=dataclasses.replace(config.wandb, optional=True))
    MetricsLogger(wanted, total_steps=1).close()
    assert "there is no key for it: set WANDB_API_KEY" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "wandb", None)
    MetricsLogger(wanted, total_steps=1).close()
    assert "wandb is not installed" in capsys.readouterr().out
    # Found: a package without the service's functions.
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password x")
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    with pytest.raises(AttributeError, match="init"):
        MetricsLogger(wanted, total_steps=1)


def test_the_launcher_sees_how_far_the_run_is(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("SKILLS_PIPE_PROGRESS_FILE", str(path))
    metrics = MetricsLogger(quiet(tmp_path), total_steps=2)
    metrics.log(1, {"train/loss": 2.5, "train/tokens_per_second": 5612.0})
    first = Progress.read(path)
    assert (first.done, first.total, first.unit) == (1, 2, "steps")
    assert (first.loss, first.tokens_per_second) == (2.5, 5612.0)
    assert first.eta_seconds >= 0
    metrics.log(2, {"validation/val_loss": 1.0})
    assert Progress.read(path) == first
    metrics.log(2, {"train/loss": 2.0})
    assert Progress.read(path).done == 2
    metrics.close()


def test_the_launcher_sees_a_checkpoint_as_soon_as_it_is_there(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("SKILLS_PIPE_PROGRESS_FILE", str(path))
    metrics = MetricsLogger(quiet(tmp_path), total_steps=9)
    metrics.log(1, {"train/loss": float("nan")})
    assert (Progress.read(path).loss, Progress.read(path).checkpoint) == (None, None)
    metrics.log(2, {"train/loss": 2.0})
    metrics.saved(2)
    assert (Progress.read(path).done, Progress.read(path).checkpoint) == (2, 2)
    metrics.close()


def test_a_resumed_run_has_a_checkpoint_from_its_first_step_on(tmp_path, monkeypatch):
    path = tmp_path / "progress.json"
    monkeypatch.setenv("SKILLS_PIPE_PROGRESS_FILE", str(path))
    metrics = MetricsLogger(quiet(tmp_path), total_steps=9, resumed_step=4)
    metrics.log(5, {"train/loss": 2.0})
    assert Progress.read(path).checkpoint == 4
    metrics.close()


SCRIPT = """
import sys
from skills_pipe.training.monitoring.metrics import MetricsLogger
from tests.training.monitoring.test_metrics import quiet
metrics = MetricsLogger(quiet(sys.argv[1]), total_steps=3)
for step in (1, 2, 3):
    metrics.log(step, {"train/loss": 1 / step, "train/lr": 1e-5, "train/tokens_per_second": 5612.0})
metrics.log(3, {"validation/val_loss": 0.25})
metrics.close()
"""


def run_script(tmp_path, **environment):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    ended = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_a_log_file_gets_plain_lines(tmp_path):
    lines = run_script(tmp_path).splitlines()
    assert lines[0].startswith("step 1/3: loss 1.0000, lr 1.00e-05, 5.61k tokens/s, ")
    assert lines[0].endswith(" left")
    assert lines[-2].startswith("step 3/3: loss 0.3333, ")
    assert lines[-1] == "step 3: val_loss 0.2500"


def test_a_terminal_gets_a_bar(tmp_path):
    shown = run_script(tmp_path, FORCE_COLOR="1", COLUMNS="120", TERM="xterm")
    assert "3/3" in shown
    assert "━" in shown
    assert "step 3/3:" not in shown
