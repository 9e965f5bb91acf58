"""Several commands in one job, as real processes under the real lines: who ends whom, and what is left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from skills_pipe.pipeline.plan import Command, Member
from skills_pipe.pipeline.records.process import ProcessId, kill, marked
from skills_pipe.pipeline.scripts.supervise import FIRST_PORT, PORTS, Part, Watch, port_variables, supervise
from tests.pipeline.programs import until

# Answers every GET with the status that is given, and can be told to end.
SERVER = """
import os, sys, signal, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[1])); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *args): pass
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["X_PORT"])), Handler)
def stop(*args):
    open(sys.argv[2] + "/asked", "w").close()
    if sys.argv[3] == "polite": os._exit(0)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[2] + "/pid", "w").write(str(os.getpid()))
server.serve_forever()
"""


@dataclass(frozen=True)
class Ended:
    """How a script ended: its exit code, what it said, and the note that it left."""

    code: int
    said: str
    note: str | None


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose server, if a test has left one running, is killed."""
    monkeypatch.setenv("TEST_FOLDER", str(tmp_path))
    yield tmp_path
    if left := _servers(tmp_path):
        kill(left, signal.SIGKILL)
        pytest.fail("a server was left behind")


def part(name: str, *lines: str, service: bool = False, ready: str | None = None, seconds: int = 30) -> Part:
    member = Member(
        name=name,
        command=Command(argv=()),
        service=service,
        ports=("X_PORT",) if service else (),
        ready=ready,
        ready_seconds=seconds,
    )
    return Part(name=name, lines=lines, member=member)


def server(folder: Path, *, status: int = 200, manner: str = "polite", seconds: int = 30) -> Part:
    (folder / "server.py").write_text(SERVER)
    line = f"exec {sys.executable} {folder}/server.py {status} {folder} {manner}"
    return part("server", line, service=True, ready="/health", seconds=seconds)


def script(folder: Path, *parts: Part, grace: int = 20) -> list[str]:
    lines = supervise(parts, Watch(note=str(folder / "note"), grace_seconds=grace))
    (folder / "script.sh").write_text("\n".join(["set -uo pipefail", *lines, 'exit "$code"']) + "\n")
    return ["bash", str(folder / "script.sh")]


def run(folder: Path, *parts: Part, grace: int = 20) -> Ended:
    answer = subprocess.run(script(folder, *parts, grace=grace), capture_output=True, text=True, check=False)
    note = folder / "note"
    return Ended(answer.returncode, answer.stdout, note.read_text().strip() if note.exists() else None)


def _alive(folder: Path) -> bool:
    """Whether the process runs whose number is in the file; one that waits only to be reaped does not."""
    return bool(_servers(folder))


def _servers(folder: Path) -> list[ProcessId]:
    """The server of a test if it runs, known by what it inherited: its number may be that of another process by now."""
    file = folder / "pid"
    number = file.read_text() if file.exists() else ""
    return [one for one in marked(f"TEST_FOLDER={folder}") if str(one.pid) == number.strip() and one.started]


GET = 'exec 3<>"/dev/tcp/$X_HOST/$X_PORT"; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3 >'


# The main command and its server


def test_the_command_starts_when_the_server_answers_and_the_server_ends_with_it(folder):
    ended = run(folder, part("main", f"{GET} {folder}/answer", f"echo $X_ADDRESS > {folder}/address"), server(folder))
    assert (ended.code, ended.note) == (0, None)
    assert (folder / "answer").read_text().endswith("hello")
    assert re.fullmatch(r"http://127.0.0.1:\d+\n", (folder / "address").read_text())
    assert (folder / "asked").exists() and not _alive(folder), "it was asked to end, and did"


def test_the_result_of_the_command_is_that_of_the_job(folder):
    ended = run(folder, part("main", "exit 7"), server(folder))
    assert (ended.code, ended.note) == (7, None), "the exit code says it all"
    assert not _alive(folder)


def test_a_server_that_dies_takes_the_command_down_and_is_named(folder):
    murder = f"kill -9 $(cat {folder}/pid)"
    ended = run(
        folder, part("main", murder, f"trap 'touch {folder}/told; exit' TERM", "sleep 100 & wait"), server(folder)
    )
    assert (ended.code, ended.note) == (137, "server died with exit code 137")
    assert (folder / "told").exists(), "the command was asked to end"


def test_a_server_that_ends_well_while_it_is_used_is_no_failure(folder):
    stop = f"kill $(cat {folder}/pid); while kill -0 $(cat {folder}/pid) 2>/dev/null; do sleep 0.1; done"
    ended = run(folder, part("main", stop, "sleep 1", f"touch {folder}/done"), server(folder))
    assert (ended.code, ended.note) == (0, None)
    assert (folder / "done").exists()


@pytest.mark.parametrize(
    ("line", "note"),
    [
        ("exit 5", "server died with exit code 5"),
        ("exit 0", "server ended before it answered"),
        ("no-such-program", "server died with exit code 127"),
    ],
)
def test_a_server_that_never_answers_because_it_ends_is_named_at_once(folder, line, note):
    silent = part("server", line, service=True, ready="/", seconds=600)
    ended = run(folder, part("main", f"touch {folder}/ran"), silent)
    assert (ended.code != 0, ended.note) == (True, note)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("status", [404, 500, 503])
def test_an_answer_that_is_no_200_does_not_count_and_the_wait_has_an_end(folder, status):
    ended = run(folder, part("main", f"touch {folder}/ran"), server(folder, status=status, seconds=2))
    assert ended.code == 1 and not (folder / "ran").exists() and not _alive(folder)
    assert ended.note is not None
    assert re.fullmatch(r"server did not answer at http://127.0.0.1:\d+/health within 2 seconds", ended.note)


def test_a_deaf_server_is_killed_in_the_end(folder):
    assert run(folder, part("main", "true"), server(folder, manner="deaf"), grace=1).code == 0
    assert (folder / "asked").exists() and not _alive(folder)


def test_what_a_server_has_started_ends_with_it(folder):
    family = part("server", f"sleep 1000 & echo $! > {folder}/pid", "wait", service=True)
    assert run(folder, part("main", f"until [ -s {folder}/pid ]; do sleep 0.1; done"), family).code == 0
    until(lambda: not _alive(folder), "the process of the server is gone")


# Several commands


def test_a_command_beside_it_that_ends_well_takes_nobody_down_and_one_that_lasts_is_waited_for(folder):
    ended = run(
        folder,
        part("main", "sleep 1", f"touch {folder}/main"),
        part("main_1", "true"),
        part("main_2", "sleep 2", f"touch {folder}/main_2"),
    )
    assert (ended.code, ended.note) == (0, None)
    assert (folder / "main").exists() and (folder / "main_2").exists()


def test_a_command_beside_it_that_fails_takes_the_others_down_and_is_named(folder):
    ended = run(folder, part("main", "sleep 100", f"touch {folder}/main"), part("main_1", "exit 4"))
    assert (ended.code, ended.note) == (4, "main_1 ended with exit code 4")
    assert not (folder / "main").exists()


# Signals


def test_a_job_that_is_told_to_end_lets_its_command_end_first_and_blames_nobody(folder):
    patient = f"trap 'test -e {folder}/asked && touch {folder}/late; sleep 1; exit 3' TERM"
    main = part("main", patient, f"touch {folder}/runs", "while :; do sleep 0.1; done")
    process = subprocess.Popen(script(folder, main, server(folder)), stdout=subprocess.DEVNULL)
    until((folder / "runs").exists, "the command runs")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 3
    assert (folder / "asked").exists() and not (folder / "late").exists(), "the server was there until the end"
    assert not (folder / "note").exists() and not _alive(folder)


def test_a_job_that_is_told_to_end_before_its_server_answers_starts_nothing(folder):
    process = subprocess.Popen(
        script(folder, part("main", f"touch {folder}/ran"), server(folder, status=503)), stdout=subprocess.DEVNULL
    )
    until(lambda: _alive(folder), "the server runs")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert not (folder / "ran").exists() and not _alive(folder)


# Ports


def _first_port(folder: Path, job: int) -> int:
    service = part("server", "sleep 1000", service=True)
    answer = subprocess.run(
        script(folder, part("main", f"echo $X_PORT > {folder}/port"), service),
        env=os.environ | {"SLURM_JOB_ID": str(job)},
        capture_output=True,
        check=True,
    )
    assert answer.returncode == 0
    return int((folder / "port").read_text())


def test_a_port_that_is_taken_is_passed_over_on_whatever_address_it_listens(folder):
    free = _first_port(folder, job=77)
    assert FIRST_PORT <= free < FIRST_PORT + PORTS + 16
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", free))
        assert _first_port(folder, job=77) != free, "bound is enough"


def test_jobs_with_neighbouring_numbers_begin_at_different_ports(folder):
    assert len({_first_port(folder, job=number) // 16 for number in (501, 502, 503)}) == 3


def test_all_variables_of_ports_are_known(folder):
    service = part("server", "sleep 1000", service=True)
    assert port_variables([service.member]) == ("X_PORT", "X_HOST", "X_ADDRESS")
    run(folder, part("main", f"env > {folder}/env"), service)
    names = {line.partition("=")[0] for line in (folder / "env").read_text().splitlines()}
    assert set(port_variables([service.member])) <= names
