"""GSM8K comes from the hub: a stand-in hub on this machine serves a parquet file as the real one does."""

import hashlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pyarrow
import pyarrow.parquet
import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.errors import DataError
from skills_pipe.evaluation.benchmarks.gsm8k.prepare import to_row
from tests.loopback import new_server, serving, url

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ANSWER = "She makes 9 * 2 = $<<9*2=18>>18 every day.\nIn all <<18*1000=18000>>18,000.\n#### 18,000"


@contextmanager
def stand_in_hub(folder):
    """Serve ``folder/<split>.parquet`` as the files of openai/gsm8k at the revisions main and COMMIT."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, *, body):
            parts = self.path.strip("/").split("/")
            known = parts[:4] == ["datasets", "openai", "gsm8k", "resolve"] and parts[4] in ("main", COMMIT)
            file = folder / f"{parts[-1].partition('-')[0]}.parquet"
            if not known or not file.exists():
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if known else "RevisionNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = file.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    with serving(new_server(Handler)) as server:
        yield url(server)


WITHOUT_WAITING = """
import runpy, types
from huggingface_hub.utils import _http
_http.time = types.SimpleNamespace(**vars(_http.time) | {"sleep": lambda seconds: None})
runpy.run_module("skills_pipe.evaluation.prepare_benchmarks", run_name="__main__")
"""
"""The program with the hub's own client, which tries six times: between its tries it does not wait."""


def prepare(endpoint, tmp_path, *arguments, program=("-m", "skills_pipe.evaluation.prepare_benchmarks")):
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, *program, "gsm8k", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.fixture
def hub_folder(tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    table = pyarrow.table({"question": ["How much?", "How many?"], "answer": [ANSWER, "Half.\n#### -3.5"]})
    pyarrow.parquet.write_table(table, folder / "test.parquet")
    return folder


def test_a_split_is_downloaded_and_its_commit_is_recorded(hub_folder, tmp_path):
    with stand_in_hub(hub_folder) as endpoint:
        result = prepare(endpoint, tmp_path, f"--data_dir={tmp_path / 'data'}", "--splits=test")
    assert result.returncode == 0, result.stderr
    path = tmp_path / "data" / "gsm8k" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == [
        {
            "problem": "How much?",
            "expected_answer": 18000,
            "reference_solution": "She makes 9 * 2 = $18 every day.\nIn all 18,000.\n",
        },
        {"problem": "How many?", "expected_answer": -3.5, "reference_solution": "Half.\n"},
    ]
    sealed = manifest.read(path)
    assert sealed.facts == {"rows": 2, "repo": "openai/gsm8k", "revision": "main", "commit": COMMIT}
    assert manifest.damage(path, sealed) == []


@pytest.mark.parametrize("override", ["++gsm8k.revision=nonsense", "++gsm8k.repo=openai/gsm9k"])
def test_what_the_hub_does_not_have_is_one_line(hub_folder, tmp_path, override):
    with stand_in_hub(hub_folder) as endpoint:
        result = prepare(endpoint, tmp_path, f"--data_dir={tmp_path / 'data'}", "--splits=test", override)
    assert result.returncode == 2
    assert result.stderr.startswith("error: cannot download main/test-00000-of-00001.parquet of ")
    assert len(result.stderr.splitlines()) == 1
    assert not list((tmp_path / "data").glob("gsm8k/*"))


def test_no_hub_at_all_is_one_line(tmp_path):
    words = (f"--data_dir={tmp_path / 'data'}", "--splits=test")
    result = prepare("http://127.0.0.1:9", tmp_path, *words, program=("-c", WITHOUT_WAITING))
    assert result.returncode == 2
    assert result.stderr.count("Retry ") == 5, "its tries are real"
    assert "HF_ENDPOINT" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("answer", ["no mark at all", "half a mark ## 3", "#### ", "#### nan", "#### many"])
def test_an_answer_without_a_number_is_refused(answer):
    with pytest.raises(DataError, match="no number after '####'"):
        to_row("How much?", answer)
