"""The server of the sandbox: it answers as NeMo-Skills' clients expect, and ends what it has started."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "containers" / "sandbox"


@contextlib.contextmanager
def running(environment=None):
    """The server at a free port; its address."""
    process = subprocess.Popen(
        [sys.executable, "-I", str(FOLDER / "server.py"), "--port=0"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().split()[-1]}"
    finally:
        process.terminate()
        assert process.wait(10) == 0


@pytest.fixture(scope="module")
def server():
    with running({"HF_TOKEN": "a secret"}) as address:
        yield address


def send(address, body, path="/execute"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(address + path, data=data)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def execute(address, code, **options):
    status, answer = send(address, {"generated_code": code, **options})
    assert status == 200
    return answer


def test_it_says_that_it_runs(server):
    with urllib.request.urlopen(f"{server}/health") as answer:
        assert answer.status == 200


def test_a_program_is_run(server):
    assert execute(server, "print(6 * 7)") == {"process_status": "completed", "stdout": "42\n", "stderr": ""}
    answer = execute(server, "import sys; print(sys.stdin.read()[::-1])", std_input="abc é")
    assert answer["stdout"] == "é cba\n"
    assert execute(server, "echo $((6 * 7))", language="shell")["stdout"] == "42\n"


def test_a_program_that_fails_is_told_apart(server):
    answer = execute(server, "print('before'); 1 / 0")
    assert (answer["process_status"], answer["stdout"]) == ("error", "before\n")
    assert "ZeroDivisionError" in answer["stderr"]


def test_a_program_that_does_not_end_is_ended_with_all_that_it_has_started(server, tmp_path):
    mark = tmp_path / "pid"
    code = f"sleep 1000 & echo $! > {mark}; echo started; wait"
    answer = execute(server, code, language="shell", timeout=1.0)
    assert (answer["process_status"], answer["stdout"]) == ("timeout", "started\n")
    assert ended(int(mark.read_text()))


def test_what_a_program_leaves_behind_is_ended(server, tmp_path):
    mark = tmp_path / "pid"
    answer = execute(server, f"sleep 1000 > /dev/null 2>&1 & echo $! > {mark}", language="shell")
    assert answer["process_status"] == "completed"
    assert ended(int(mark.read_text()))


def ended(pid):
    """Whether a process is gone, or about to be collected."""
    limit = time.time() + 20
    while time.time() < limit:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_programs_share_no_folder_and_see_no_secret(server):
    code = "import os; open('file', 'x'); print(os.getcwd(), os.environ.get('HF_TOKEN'))"
    first, second = (execute(server, code)["stdout"].split() for _ in range(2))
    assert first[0] != second[0]
    assert (first[1], second[1]) == ("None", "None")
    assert not Path(first[0]).exists()


def test_output_and_memory_are_limited(server):
    assert execute(server, "print('x' * 10**6)", max_output_characters=10)["stdout"] == "x" * 10
    assert "MemoryError" in execute(server, "x = bytearray(20 * 2**30)", max_output_characters=5000)["stderr"]


def test_programs_run_side_by_side(server):
    """Each waits for the file that the next one makes: one after the other they would never end."""
    folder = execute(server, "import tempfile; print(tempfile.mkdtemp(dir='/tmp'))")["stdout"].strip()
    code = "import os, time\nopen('{0}/{1}', 'x')\nwhile len(os.listdir('{0}')) < 3: time.sleep(0.01)"
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda number: execute(server, code.format(folder, number), timeout=60), range(3)))
    assert {answer["process_status"] for answer in answers} == {"completed"}


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", {}, {"generated_code": "1", "language": "cobol"}, {"generated_code": "1", "timeout": "soon"}],
)
def test_a_request_that_makes_no_sense_is_refused(server, body):
    status, answer = send(server, body)
    assert status == 400
    assert "the request is not understood" in answer["error"]


def test_other_addresses_are_not_found(server):
    assert send(server, {"generated_code": "1"}, path="/other")[0] == 404


def test_it_listens_only_where_it_is_told_to():
    text = (FOLDER / "start-with-nginx.sh").read_text()
    assert '--host="${NEMO_SKILLS_SANDBOX_HOST:-127.0.0.1}" --port="${LISTEN_PORT:-6000}"' in text
