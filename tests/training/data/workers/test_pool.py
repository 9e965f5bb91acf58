import json
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from skills_pipe.errors import DataError
from skills_pipe.pipeline.records.process import ProcessId
from skills_pipe.training.data.build import BuildOptions, DataSettings, build_dataset
from skills_pipe.training.data.chunk import Recipe
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.sources.holdout import hold_out
from skills_pipe.training.data.template import resolve_template
from skills_pipe.training.data.workers.pool import encode_in_order
from skills_pipe.training.data.workers.task import Handed, Stretch, tasks
from tests.pipeline.programs import until
from tests.training.tiny import chat_rows, tiny_tokenizer, write_jsonl

ROWS = 3000


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return write_jsonl(tmp_path_factory.mktemp("rows") / "rows.jsonl", chat_rows(ROWS))


@pytest.fixture(scope="module")
def many_rows(rows):
    """So many that the processes are still busy when the test looks."""
    many = rows.with_name("many.jsonl")
    many.write_text(rows.read_text() * 10)
    return many


def recipe(**settings):
    tokenizer = tiny_tokenizer()
    template = resolve_template("default", tokenizer, None, "chat")
    return Recipe(tokenizer=tokenizer, template=template, settings=DataSettings(max_length=300, **settings))


def build(path, workers, **settings):
    made = recipe(**settings)
    return build_dataset(
        [DataSource(path=path)], made.tokenizer, made.template, made.settings, BuildOptions(workers=workers)
    )


def children():
    """Numbers of the processes that tokenise for this one; not from ps, which cuts long command lines."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _tokenises_for_us(entry)]


def _tokenises_for_us(process):
    try:
        parent = process.joinpath("stat").read_text().rpartition(")")[2].split()[1]
        words = process.joinpath("cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(parent) == os.getpid() and b"skills_pipe.training.data.workers.worker" in words


def test_a_process_is_found_however_long_its_command_line(tmp_path, monkeypatch):
    # What shows command lines cuts them to the width of a terminal, where there is one.
    monkeypatch.setenv("COLUMNS", "80")
    python = tmp_path / ("long" * 40) / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    script = [python, "-c", "import sys; sys.stdin.read()", "skills_pipe.training.data.workers.worker"]
    with subprocess.Popen(script, stdin=subprocess.PIPE) as process:
        until(lambda: children() == [process.pid], "it is found")
        process.stdin.close()
        process.wait()
        assert children() == []


def test_several_processes_make_what_one_makes(rows):
    alone, shared = build(rows, 1), build(rows, 2)
    assert shared.fingerprint == alone.fingerprint
    assert shared.report == alone.report
    assert len(shared) == ROWS
    assert children() == []


def test_files_that_are_read_from_their_start_are_handed_out(rows, tmp_path):
    whole = tmp_path / "rows.json"
    whole.write_text(json.dumps([json.loads(line) for line in rows.read_text().splitlines()]))
    assert {type(task) for task in tasks([DataSource(path=whole)])} == {Handed}
    assert {type(task) for task in tasks([DataSource(path=rows)])} == {Stretch}
    assert build(whole, 2).fingerprint == build(rows, 1).fingerprint


def test_faults_found_by_the_processes_are_those_found_by_one(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = rows.read_text().splitlines()
    lines[2500] = "{"
    path.write_text("\n".join(lines))
    told = []
    for workers in (1, 2):
        with pytest.raises(DataError) as caught:
            build(path, workers)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert f"{path}:2501" in told[0]
    assert build(path, 2, on_bad_row="skip").report.dropped == {"bad row": 1}


def test_a_refusal_in_a_process_is_raised_here(rows, tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [*chat_rows(2600), *chat_rows(1)])
    long = {"messages": [{"role": "user", "content": "q" * 400}, {"role": "assistant", "content": "a"}]}
    with open(path, "a") as file:
        file.write(json.dumps(long) + "\n")
    with pytest.raises(DataError, match=rf"a document has \d+ tokens, 300 are allowed \({path}:2602\)"):
        build(path, 2, overlong="error")
    assert children() == []


def test_a_process_that_is_killed_ends_the_work_with_a_reason(many_rows):
    chunks = encode_in_order(recipe, tasks([DataSource(path=many_rows)]), workers=2)
    list(islice(chunks, 9))
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(DataError, match=r"a process that tokenises ended with -9 \(data\.num_workers\)"):
        list(chunks)


def test_processes_end_where_it_cannot_be_settled_how_rows_become_documents(many_rows):
    def refused():
        # A program that has only just begun has no command line yet.
        until(lambda: len(children()) == 2, "two processes")
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        next(encode_in_order(refused, tasks([DataSource(path=many_rows)]), workers=2))
    assert children() == []


def test_processes_end_with_those_who_stop_listening(many_rows):
    chunks = encode_in_order(recipe, tasks([DataSource(path=many_rows)]), workers=2)
    list(islice(chunks, 9))
    assert len(children()) == 2
    chunks.close()
    assert children() == []


SCRIPT = """
import os, sys, time
from pathlib import Path
from tests.training.data.workers.test_pool import children, recipe
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.workers.pool import encode_in_order
from skills_pipe.training.data.workers.task import tasks
chunks = encode_in_order(recipe, tasks([DataSource(path=Path(sys.argv[1]))]), workers=2)
for _ in range(9):
    next(chunks)
print(*children(), flush=True)
time.sleep(600)
"""


def test_a_script_without_a_guard_may_start_them_and_they_end_with_it_when_it_is_killed(many_rows, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}
    process = subprocess.Popen([sys.executable, script, many_rows], stdout=subprocess.PIPE, text=True, env=environment)
    started = [ProcessId.of(int(pid)) for pid in process.stdout.readline().split()]
    assert [each.is_alive for each in started] == [True, True]
    process.kill()
    process.communicate()
    until(lambda: not any(each.is_alive for each in started), "they end")


def test_rows_set_aside_stay_apart_in_stretches(rows):
    ((train, validation),) = hold_out([ROWS], 0.1, 7)
    made = recipe()
    lengths = []
    for part in (train, validation):
        source = DataSource(path=rows, part=part)
        sets = [
            build_dataset([source], made.tokenizer, made.template, made.settings, BuildOptions(workers=workers))
            for workers in (1, 2)
        ]
        assert sets[0].fingerprint == sets[1].fingerprint
        lengths.append(len(sets[0]))
    assert lengths == [2700, 300]
    assert np.sum(lengths) == ROWS
