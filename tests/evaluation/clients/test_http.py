"""Talking to servers: a real server on this machine that answers, stumbles, refuses and goes away."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from skills_pipe.errors import JobFailed, OptionError
from skills_pipe.evaluation.clients.base import CONTEXT_WINDOW_EXCEEDED, Request
from skills_pipe.evaluation.clients.http import HttpClient, HttpOptions
from skills_pipe.evaluation.settings import Inference, Server
from tests.loopback import serving

INFERENCE = Inference(tokens_to_generate=50, timeout=10.0)


def completion(text, reason="stop"):
    return {"choices": [{"message": {"content": text}, "finish_reason": reason}], "usage": {"completion_tokens": 5}}


class StandIn(ThreadingHTTPServer):
    """Answers ``<question>!``; ``replies`` maps a question to (status, body, headers) answers to give before that;
    None breaks the connection."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = {}
        self.bodies = []
        self.headers = []
        self.models_replies = []
        self.lock = threading.Lock()
        self.gate = None

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        with self.server.lock:
            status = self.server.models_replies.pop(0) if self.server.models_replies else 200
        self.reply(status, {"data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            queue = self.server.replies.get(question, [])
            reply = queue.pop(0) if queue else (200, completion(question + "!"), {})
        if self.server.gate is not None:
            self.server.gate.wait(timeout=30)
        if reply is None:
            self.close_connection = True
        else:
            self.reply(*reply)

    def reply(self, status, body, headers=None):
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with serving(StandIn()) as server:
        yield server


@contextmanager
def client(server, server_type="vllm", **settings):
    options = HttpOptions(
        server_type=server_type, address=server.address, model="m", server=Server(startup_timeout=2.0, **settings)
    )
    client = HttpClient(options)
    try:
        yield client
    finally:
        client.close()


def ask(questions, server, inference=INFERENCE, **settings):
    requests = [Request(position=i, messages=[{"role": "user", "content": q}]) for i, q in enumerate(questions)]
    with client(server, **settings) as http:
        return {answer.position: answer for answer in http.generate(requests, inference)}


def test_every_request_gets_its_own_answer(server):
    answers = ask([f"q{i}" for i in range(50)], server)
    assert {p: a.text for p, a in answers.items()} == {i: f"q{i}!" for i in range(50)}
    assert answers[0].num_generated_tokens == 5
    assert answers[0].finish_reason == "stop"


def test_the_body_holds_what_was_asked_for_and_nothing_that_is_off(server):
    ask(["q"], server)
    assert server.bodies[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "q"}],
        "temperature": 0.0,
        "seed": 0,
        "max_tokens": 50,
    }
    sampled = replace(INFERENCE, temperature=0.7, top_p=0.9, top_k=5, min_p=0.1, random_seed=3, stop_phrases=("x",))
    ask(["q"], server, sampled, extra_body={"guided": 1})
    extra = {"top_p": 0.9, "top_k": 5, "min_p": 0.1, "stop": ["x"], "guided": 1}
    assert extra.items() <= server.bodies[1].items()
    assert server.bodies[1]["seed"] == 3


def test_so_many_requests_are_under_way_at_once_and_no_more(server):
    server.gate = threading.Barrier(4)
    answers = ask([f"q{i}" for i in range(8)], server, max_concurrent_requests=4)
    # With fewer than four under way, the barrier would break and the server's threads with it.
    assert all(answer.error is None for answer in answers.values())
    assert not server.gate.broken


def test_a_stumble_is_tried_again(server):
    server.replies["q0"] = [(503, "busy", {"Retry-After": "0"}), (429, "slow down", {"Retry-After": "0"})]
    answers = ask(["q0", "q1"], server)
    assert answers[0].text == "q0!"
    assert len(server.bodies) == 4


def test_after_the_last_attempt_the_row_says_why_and_the_others_go_on(server):
    server.replies["q0"] = [(500, "broken pipe", {"Retry-After": "0"})] * 9
    answers = ask(["q0", "q1"], server, max_retries=2)
    assert (answers[0].error, answers[0].detail, answers[0].finish_reason) == ("http_500", "broken pipe", "error")
    assert answers[1].text == "q1!"
    assert len(server.bodies) == 4


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error": {"message": "maximum context length is 4096"}}, CONTEXT_WINDOW_EXCEEDED),
        (400, {"error": {"message": "bad field"}}, "http_400"),
        (404, "no such model", "http_404"),
        (200, "no json", "malformed_response"),
        (200, {"choices": []}, "malformed_response"),
    ],
)
def test_what_another_attempt_cannot_mend_is_not_tried_again(server, status, body, error):
    server.replies["q0"] = [(status, body, {})] * 2
    answers = ask(["q0"], server)
    assert answers[0].error == error
    assert len(server.bodies) == 1


def test_a_server_that_still_loads_is_waited_for(server):
    server.models_replies = [503, 503]
    assert ask(["q"], server)[0].text == "q!"
    assert server.models_replies == []


def test_no_server_is_told_after_the_waiting_time():
    options = HttpOptions(
        server_type="vllm", address="http://127.0.0.1:9", model="m", server=Server(startup_timeout=0.1)
    )
    with pytest.raises(JobFailed, match="no server answers at http"):
        HttpClient(options)


def test_a_connection_that_breaks_is_an_error_after_the_last_attempt(server):
    server.replies["q0"] = [None, None]
    answers = ask(["q0", "q1"], server, max_retries=1)
    assert answers[0].error == "RemoteProtocolError"
    assert answers[1].text == "q1!"
    server.replies["q0"] = [None]
    assert ask(["q0"], server, max_retries=1)[0].text == "q0!"


def test_keys_are_sent_where_they_are_wanted_and_refusals_stop_everything(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(OptionError, match="OPENAI_API_KEY"):
        ask(["q"], server, server_type="openai")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    ask(["q"], server, server_type="openai")
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"
    assert server.bodies[0]["max_completion_tokens"] == 50
    ask(["q"], server)
    assert "Authorization" not in server.headers[1]
    server.replies["q"] = [(401, "no", {})]
    with pytest.raises(OptionError, match="refuses the key") as caught:
        ask(["q"], server, server_type="openai")
    assert "sk-secret" not in str(caught.value)


def test_settings_that_a_server_would_ignore_are_refused(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(OptionError, match="server type openai has no top_k"):
        ask(["q"], server, replace(INFERENCE, temperature=1.0, top_k=5), server_type="openai")


def test_an_address_that_is_no_url_is_refused():
    with pytest.raises(OptionError, match="is no URL"):
        HttpClient(HttpOptions(server_type="vllm", address="localhost:8000", model="m"))
