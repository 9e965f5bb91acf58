"""Models on the hub, asked of servers on this machine that answer as the hub does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import pytest

from skills_pipe.pipeline.checks import hub
from skills_pipe.pipeline.checks.hub import HubModel, HubQuestions, check_hub
from skills_pipe.pipeline.cli import main
from tests.loopback import new_server, serving, url

CONFIG = b'{"model_type": "llama"}'
GATED = {"X-Error-Code": "GatedRepo"}
ABSENT = {"X-Error-Code": "RepoNotFound"}


@dataclass
class Hub:
    """A stand-in: answers by model, and what it was asked with."""

    url: str
    answers: dict[str, tuple[int, dict[str, str], bytes]]
    tokens: list[str | None] = field(default_factory=list)


@contextmanager
def serve(answers) -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found.tokens.append(self.headers.get("Authorization"))
            status, headers, body = answers.get(self.path.split("/resolve/")[0].strip("/"), (401, ABSENT, b""))
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with serving(new_server(Handler)) as server:
        found = Hub(url=url(server), answers=answers)
        yield found


@pytest.fixture
def stand_in(monkeypatch) -> Iterator[Hub]:
    """A hub with an open model, a gated one, a private one, and a folder that is no model."""
    answers = {
        "org/open": (200, {}, CONFIG),
        "org/gated": (401, GATED, b""),
        "org/closed": (403, GATED, b""),
        "org/data": (404, {"X-Error-Code": "EntryNotFound"}, b""),
        "org/odd": (503, {}, b""),
    }
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serve(answers) as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


def told(*names: str, token: str | None = None, cached: frozenset[str] = frozenset()) -> str:
    models = HubQuestions(names, token=token).answers()
    checked = check_hub(models, cached=cached, token=token is not None)
    return "\n".join(map(str, checked.findings)) or f"{checked.left_out or ''}|{checked.note}"


def test_a_model_that_can_be_read_gives_its_sizes(stand_in):
    assert HubQuestions(["org/open"], token=None).answers() == {"org/open": HubModel(status=200, config=CONFIG)}
    assert told("org/open") == "|org/open can be read"


def test_a_gated_model_is_told_with_its_page(stand_in):
    assert told("org/gated") == (
        "error: org/gated is not open to everybody, and you may not read it (Hugging Face hub): "
        f"accept its conditions at {stand_in.url}/org/gated, and export HF_TOKEN"
    )
    assert "HF_TOKEN" not in told("org/closed", token="t")


def test_a_model_that_is_not_there_may_be_private_or_a_folder(stand_in):
    message = told("org/nosuch")
    assert message.startswith("error: there is no model org/nosuch on the hub that you may read")
    assert "./org/nosuch for a folder; export HF_TOKEN if it is private" in message


def test_a_repository_without_a_model_is_told(stand_in):
    assert "error: org/data has no config.json" in told("org/data")


def test_what_is_in_the_cache_of_the_jobs_is_a_warning_only(stand_in):
    assert told("org/gated", cached=frozenset({"org/gated"})).startswith("warning: ")


def test_all_models_are_asked_for_at_once(stand_in):
    message = told("org/gated", "org/nosuch", "org/open")
    assert "org/gated" in message and "org/nosuch" in message and "org/open" not in message


def test_the_token_of_the_jobs_is_shown(stand_in):
    told("org/open", token="secret")
    told("org/open")
    assert stand_in.tokens == ["Bearer secret", None]


def test_the_token_is_shown_to_nobody_else(stand_in):
    with serve({"org/open": (200, {}, CONFIG)}) as other:
        there = other.url.replace("127.0.0.1", "localhost")
        stand_in.answers["org/moved"] = (302, {"Location": f"{there}/org/open/resolve/main/config.json"}, b"")
        stand_in.answers["org/renamed"] = (307, {"Location": f"{stand_in.url}/org/open/resolve/main/config.json"}, b"")
        assert "org/moved can be read" in told("org/moved", token="secret")
        assert "org/renamed can be read" in told("org/renamed", token="secret")
        assert other.tokens == [None]
    assert stand_in.tokens == ["Bearer secret"] * 3, "the negative control: on the same host it is shown"


@pytest.mark.parametrize("name", ["org/odd", "org/hangs"])
def test_a_hub_that_says_nothing_is_no_error(stand_in, monkeypatch, name):
    monkeypatch.setattr(hub, "SECONDS", 0.2)
    hold = threading.Event()

    class Slow(dict):
        def get(self, key, default=None):
            if key == "org/hangs":
                hold.wait(10)
            return super().get(key, default)

    with serve(Slow(stand_in.answers)) as slow:
        monkeypatch.setenv("HF_ENDPOINT", slow.url)
        assert told(name) == f"it says nothing about {name}|"
        hold.set()


def test_without_a_hub_nothing_is_wrong(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert told("org/open") == "it says nothing about org/open|"


DATA = "hf://datasets/org/rows"


def test_datasets_are_asked_for_as_datasets(stand_in):
    assert "there is no dataset org/rows on the hub" in told(DATA)
    stand_in.answers["api/datasets/org/rows/auth-check"] = (200, {}, b"{}")
    assert told(DATA) == "|org/rows can be read"
    stand_in.answers["api/datasets/org/rows/auth-check"] = (403, GATED, b"")
    assert f"accept its conditions at {stand_in.url}/datasets/org/rows, and export HF_TOKEN" in told(DATA)


def test_a_mirror_that_does_not_know_the_question_is_no_error(stand_in):
    stand_in.answers["api/datasets/org/rows/auth-check"] = (404, {"X-Error-Code": "EntryNotFound"}, b"")
    assert told(DATA) == "it says nothing about org/rows|"


# --- in a command


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "data.jsonl").write_text('{"input": "a", "output": "b"}\n')

    def check(model: str, data: str = "data.jsonl") -> str:
        words = ["nemo_rl", "sft", "--output_dir=out", f"--hf_model={model}", f"--training_data={data}"]
        code = main(["check", *words, "++sft.max_num_steps=1"])
        return f"{code} {capsys.readouterr().out}"

    return check


def test_a_command_tells_of_a_model_that_cannot_be_read(stand_in, run):
    assert run("org/open").startswith("0 ")
    message = run("org/gated")
    assert message.startswith("2 ") and "org/gated is not open to everybody" in message


def test_a_model_that_was_downloaded_before_needs_no_hub(stand_in, run, tmp_path):
    (tmp_path / "hf" / "hub" / "models--org--gated").mkdir(parents=True)
    assert run("org/gated").startswith("0 ")


def test_offline_nobody_is_asked(stand_in, run, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "Hugging Face hub" not in run("org/gated")
    assert stand_in.tokens == []


def test_a_command_tells_of_data_that_cannot_be_read(stand_in, run):
    message = run("org/open", "rajpurkar/squad")
    assert message.startswith("2 ") and "there is no dataset rajpurkar/squad on the hub" in message
    stand_in.answers["api/datasets/rajpurkar/squad/auth-check"] = (200, {}, b"{}")
    assert run("org/open", "rajpurkar/squad").startswith("0 ")
    assert run("org/open", "squad").startswith("0 ")


def test_jobs_without_a_connection_need_everything_in_their_cache(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = run("org/open", "squad")
    assert message.startswith("2 ")
    home = tmp_path / "hf"
    assert f"HF_HOME={home} hf download --repo-type dataset rajpurkar/squad" in message
    assert f"HF_HOME={home} hf download org/open" in message
    for name in ("models--org--open", "datasets--rajpurkar--squad"):
        (home / "hub" / name).mkdir(parents=True)
    assert run("org/open", "squad").startswith("0 ")
