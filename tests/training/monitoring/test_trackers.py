"""The services themselves, without a connection: the jobs of a chain write to one run."""

import dataclasses
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from skills_pipe.artifacts.metrics import read_metrics
from skills_pipe.artifacts.names import METRICS
from skills_pipe.errors import ConfigError
from skills_pipe.training.monitoring import mlflow_tracker
from skills_pipe.training.monitoring.metrics import MetricsLogger
from skills_pipe.training.monitoring.run_ids import RunIds
from tests.loopback import serving
from tests.training.monitoring.test_metrics import log_steps, quiet

SETTINGS = {
    "wandb": {"mode": "offline"},
    "swanlab": {"mode": "offline"},
    "mlflow": {"run_name": "chain"},
}


def config(folder, service, **changes):
    plain = quiet(folder)
    section = dataclasses.replace(getattr(plain, service), **(SETTINGS[service] | changes))
    return dataclasses.replace(plain, **{f"{service}_enabled": True, service: section})


def two_jobs(folder, service, **changes):
    """Three steps in a job, three more in the next one, which resumes from the first one's last but one."""
    for steps, resumed in ((range(1, 4), 0), (range(3, 6), 2)):
        settings = config(folder, service, **changes)
        metrics = MetricsLogger(settings, total_steps=5, resumed_step=resumed, run_config={"sft": {"seed": 1}})
        log_steps(metrics, steps)
        metrics.close()


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """No settings of whoever runs the tests, and nothing written beside them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_API_KEY", "WANDB_MODE", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "SWANLAB_MODE"):
        monkeypatch.delenv(name, raising=False)


def test_who_is_not_logged_in_to_weights_and_biases_is_told_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(ConfigError, match=r"Biases cannot be used: No API key.*set WANDB_API_KEY where nobody"):
        MetricsLogger(config(tmp_path / "logs", "wandb", mode=None), total_steps=1)


def test_weights_and_biases_gets_both_jobs_in_one_run(tmp_path):
    pytest.importorskip("wandb")
    two_jobs(tmp_path / "logs", "wandb")
    files = list((tmp_path / "logs" / "wandb").glob("wandb/offline-run-*/run-*.wandb"))

    assert len(files) == 2
    assert {file.name for file in files} == {f"run-{RunIds(tmp_path / 'logs').kept('wandb')}.wandb"}


def test_an_id_of_the_users_own_is_taken(tmp_path):
    pytest.importorskip("wandb")
    two_jobs(tmp_path / "logs", "wandb", id="my-chain")

    assert len(list((tmp_path / "logs" / "wandb").glob("wandb/offline-run-*/run-my-chain.wandb"))) == 2


def test_swanlab_gets_both_jobs_in_one_run(tmp_path):
    pytest.importorskip("swanlab")
    two_jobs(tmp_path / "logs", "swanlab")
    identity = RunIds(tmp_path / "logs").kept("swanlab")

    files = list((tmp_path / "logs" / "swanlab").glob("run-*/run-*.swanlab"))
    assert len(files) >= 1
    assert {file.name for file in files} == {f"run-{identity}.swanlab"}


def test_mlflow_gets_both_jobs_in_one_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "store").as_uri()
    two_jobs(tmp_path / "logs", "mlflow", tracking_uri=address)

    client = mlflow.MlflowClient(tracking_uri=address)
    found = client.search_runs([client.get_experiment_by_name("skills-pipe").experiment_id])
    assert [run.info.run_id for run in found] == [RunIds(tmp_path / "logs").kept("mlflow")]
    history = client.get_metric_history(found[0].info.run_id, "train/loss")
    assert sorted({(point.step, point.value) for point in history}) == [(step, 1 / step) for step in range(1, 6)]


@pytest.mark.parametrize(("failed", "status"), [(True, "FAILED"), (False, "FINISHED")])
def test_mlflow_is_told_whether_the_training_failed(tmp_path, monkeypatch, failed, status):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "store").as_uri()
    metrics = MetricsLogger(config(tmp_path / "logs", "mlflow", tracking_uri=address), total_steps=5)
    log_steps(metrics, [1])
    metrics.close(failed=failed)

    run = mlflow.MlflowClient(tracking_uri=address).get_run(RunIds(tmp_path / "logs").kept("mlflow"))
    assert run.info.status == status


@pytest.mark.parametrize(
    ("service", "failed", "told"),
    [
        ("wandb", True, ((), {"exit_code": 1})),
        ("wandb", False, ((), {"exit_code": 0})),
        ("swanlab", True, (("crashed",), {"error": "the log of the job says why"})),
        ("swanlab", False, ((), {})),
    ],
)
def test_the_other_services_are_told_too(tmp_path, monkeypatch, service, failed, told):
    """In their own words; what they write of them is in formats of their own."""
    module = pytest.importorskip(service)
    owner = module.Run if service == "wandb" else module
    really, calls = owner.finish, []

    def finish(*values, **named):
        calls.append((values[service == "wandb" :], named))
        return really(*values, **named)

    monkeypatch.setattr(owner, "finish", finish)
    metrics = MetricsLogger(config(tmp_path / "logs", service), total_steps=5)
    log_steps(metrics, [1])
    metrics.close(failed=failed)
    assert calls[:1] == [told]


def test_a_run_that_mlflow_does_not_find_for_a_while_ends_nothing_and_is_told_once(tmp_path, monkeypatch, capsys):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store, away = tmp_path / "store", tmp_path / "away"
    metrics = MetricsLogger(config(tmp_path / "logs", "mlflow", tracking_uri=store.as_uri()), total_steps=5)
    (tracker,) = metrics._trackers

    def log(step):
        log_steps(metrics, [step])
        assert tracker.settle(60)

    log(1)
    (folder,) = store.glob(f"*/{RunIds(tmp_path / 'logs').kept('mlflow')}")
    folder.rename(away)
    log(2)
    log(3)
    away.rename(folder)
    log(4)
    metrics.close()

    assert capsys.readouterr().out.count("MLflow takes nothing from step 2 on") == 1
    client = mlflow.MlflowClient(tracking_uri=store.as_uri())
    run = client.get_run(RunIds(tmp_path / "logs").kept("mlflow"))
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 4]


def test_a_password_in_the_address_of_mlflow_is_not_shown(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://me:hunter2@127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"does not start the run.*http://\*\*\*@127\.0\.0\.1") as told:
            MetricsLogger(config(tmp_path / "logs", "mlflow", tracking_uri=address), total_steps=1)
    assert "hunter2" not in str(told.value)


def test_names_that_mlflow_refuses_are_sent_as_it_takes_them(tmp_path, monkeypatch, capsys):
    """One of them would take the values that are sent with it along."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "store").as_uri()
    metrics = MetricsLogger(config(tmp_path / "logs", "mlflow", tracking_uri=address), total_steps=5)
    metrics.log(1, {"validation/loss": 2.0, "validation/math+code/pass@1": 0.5})
    metrics.close()

    assert "MLflow" not in capsys.readouterr().out
    run = mlflow.MlflowClient(tracking_uri=address).get_run(RunIds(tmp_path / "logs").kept("mlflow"))
    assert run.data.metrics == {"validation/loss": 2.0, "validation/math_code/pass_1": 0.5}


def test_an_error_of_any_kind_at_mlflows_start_is_one_clear_line(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")

    def failing(*_, **__):
        raise ValueError("what is that")

    monkeypatch.setattr(mlflow, "start_run", failing)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with pytest.raises(ConfigError, match="MLflow does not start the run: what is that"):
        MetricsLogger(config(tmp_path / "logs", "mlflow", tracking_uri=(tmp_path / "store").as_uri()), total_steps=1)


@pytest.mark.parametrize("error", [TimeoutError, KeyError, json.JSONDecodeError("no number", "x", 0), RuntimeError])
def test_no_error_ends_what_is_sent_to_mlflow(tmp_path, monkeypatch, capsys, error):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    address = (tmp_path / "store").as_uri()
    metrics = MetricsLogger(config(tmp_path / "logs", "mlflow", tracking_uri=address), total_steps=5)
    (tracker,) = metrics._trackers

    def failing(*_):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_batch", failing)
        log_steps(metrics, [1])
        assert tracker.settle(60)
    log_steps(metrics, [2])
    metrics.close()

    # One without words is told by its name.
    words = str(error) if isinstance(error, Exception) else error.__name__
    assert f"MLflow takes nothing from step 1 on: {words}" in capsys.readouterr().out
    client = mlflow.MlflowClient(tracking_uri=address)
    run = client.get_run(RunIds(tmp_path / "logs").kept("mlflow"))
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [2]


class Server(ThreadingHTTPServer):
    """Answers as an MLflow server with one experiment, until its door is shut: then requests are never answered."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answering)
        self.door, self.kept_waiting = threading.Event(), threading.Event()
        self.door.set()
        self.steps, self.status = [], "RUNNING"

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, what, request):
        run = {"run_id": "r1", "run_uuid": "r1", "experiment_id": "1", "status": self.status, "artifact_uri": "/none"}
        experiment = {"experiment_id": "1", "name": "skills-pipe", "artifact_location": "/none"}
        experiment["lifecycle_stage"] = run["lifecycle_stage"] = "active"
        if what == "runs/log-batch":
            self.steps += [metric["step"] for metric in request["metrics"] if metric["key"] == "train/loss"]
        if what == "runs/update":
            self.status = request["status"]
        return {"run": {"info": run, "data": {}}, "run_info": run, "experiment": experiment}


class Answering(BaseHTTPRequestHandler):
    def do_GET(self):
        if not self.server.door.is_set():
            self.server.kept_waiting.set()
        assert self.server.door.wait(120)
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        body = json.dumps(self.server.answer(self.path.partition("mlflow/")[2].partition("?")[0], request)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *values):
        """Nothing."""


@pytest.fixture
def server():
    pytest.importorskip("mlflow")
    with serving(Server()) as made:
        yield made
        made.door.set()


def test_training_goes_on_while_mlflows_server_does_not_answer_and_the_values_come_later(tmp_path, server):
    metrics = MetricsLogger(config(tmp_path / "logs", "mlflow", tracking_uri=server.address), total_steps=5)
    (tracker,) = metrics._trackers
    log_steps(metrics, [1])
    assert tracker.settle(60)
    server.door.clear()
    log_steps(metrics, [2])
    assert server.kept_waiting.wait(60)
    # Sent by the thread of the loop, these would wait for the door, which opens after them.
    log_steps(metrics, [3, 4])
    assert not tracker.settle(0)
    server.door.set()
    metrics.close()

    assert (server.steps, server.status) == ([1, 2, 3, 4], "FINISHED")


def test_the_end_of_a_job_waits_only_so_long_for_mlflows_server(tmp_path, server, monkeypatch, capsys):
    monkeypatch.setattr(mlflow_tracker, "CLOSE_SECONDS", 0.5)
    metrics = MetricsLogger(config(tmp_path / "logs", "mlflow", tracking_uri=server.address), total_steps=5)
    (tracker,) = metrics._trackers
    log_steps(metrics, [1])
    assert tracker.settle(60)
    server.door.clear()
    log_steps(metrics, [2, 3])
    metrics.close()

    said = capsys.readouterr().out
    assert said.count("did not answer for 0.5 seconds: the values from step 2 on are not there") == 1
    server.door.set()
    assert tracker.settle(60)


def test_a_job_does_not_start_with_an_mlflow_that_never_answers(tmp_path, server, monkeypatch):
    monkeypatch.setattr(mlflow_tracker, "START_SECONDS", 0.5)
    server.door.clear()
    with pytest.raises(ConfigError, match=r"no answer for 0\.5 seconds.*logger\.mlflow"):
        MetricsLogger(config(tmp_path / "logs", "mlflow", tracking_uri=server.address), total_steps=5)


def test_what_mlflow_refuses_is_one_clear_line(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    with pytest.raises(ConfigError, match=r"MLflow does not start the run.*logger\.mlflow"):
        MetricsLogger(config(tmp_path, "mlflow", tracking_uri=(tmp_path / "s").as_uri()), total_steps=1)


@pytest.mark.parametrize(
    ("service", "owner", "method", "title"),
    [
        ("wandb", "wandb.Run", "log", "Weights & Biases"),
        ("swanlab", "swanlab", "log", "SwanLab"),
        ("tensorboard", "torch.utils.tensorboard.SummaryWriter", "add_scalar", "TensorBoard"),
    ],
)
def test_no_service_that_fails_ends_a_training(tmp_path, monkeypatch, capsys, service, owner, method, title):
    """Their packages raise errors of many kinds, at any time; the numbers are in the file all the same."""
    pytest.importorskip(owner.split(".")[0])
    quietly = quiet(tmp_path / "logs") if service == "tensorboard" else config(tmp_path / "logs", service)
    settings = dataclasses.replace(quietly, **{f"{service}_enabled": True})
    metrics = MetricsLogger(settings, total_steps=5)
    log_steps(metrics, [1])

    def failing(*_, **__):
        raise RuntimeError("the service is gone")

    with monkeypatch.context() as patched:
        patched.setattr(f"{owner}.{method}", failing)
        log_steps(metrics, [2, 3])
    log_steps(metrics, [4])
    metrics.close()

    assert capsys.readouterr().out.count(f"{title} takes nothing from step 2 on: the service is gone") == 1
    assert [line["step"] for line in read_metrics(tmp_path / "logs" / METRICS)] == [1, 2, 3, 4]


def test_a_service_that_cannot_end_its_run_ends_no_training(tmp_path, monkeypatch, capsys):
    settings = dataclasses.replace(quiet(tmp_path / "logs"), tensorboard_enabled=True)
    metrics = MetricsLogger(settings, total_steps=5)

    def failing(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.close", failing)
    metrics.close()
    assert "TensorBoard takes nothing at the end: no space left" in capsys.readouterr().out


def test_ids_are_kept_by_service(tmp_path):
    first = RunIds(tmp_path).of("wandb")
    assert RunIds(tmp_path).of("wandb") == first
    assert RunIds(tmp_path).of("swanlab") not in (first, None)
    assert RunIds(tmp_path).of("wandb", "given") == "given"
    assert RunIds(tmp_path).of("wandb") == "given"
    assert json.loads((tmp_path / "tracked_runs.json").read_text()).keys() == {"wandb", "swanlab"}


def test_a_file_that_is_no_json_is_as_none(tmp_path):
    (tmp_path / "tracked_runs.json").write_text("{")
    assert len(RunIds(tmp_path).of("wandb")) == 21
