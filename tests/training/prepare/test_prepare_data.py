"""The program: what it prints, what it leaves on disk, and what survives when it is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.names import ENV_IDENTITY, ENV_PROGRESS, manifest_path
from skills_pipe.artifacts.progress import Progress
from skills_pipe.training.prepare_data import main
from tests.training.prepare.rows import read_rows, solution, write_rows

PROGRAM = [sys.executable, "-m", "skills_pipe.training.prepare_data"]


def arguments(tmp_path, *more):
    return [f"++input_files={tmp_path}/in.jsonl", f"++output_path={tmp_path}/out.jsonl", *more]


def test_the_table_and_the_manifest_account_for_every_row(tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", [solution(1), solution(1), solution(2, symbolic_correct=False), solution(3)])
    assert main(arguments(tmp_path)) == 0
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    assert ["processor", "read", "dropped", "modified", "kept", "seconds", "rows/s"] in lines
    assert any(line[:5] == ["ReadData", "4", "2", "0", "2"] for line in lines)
    assert ["incorrect", "1"] in lines
    assert ["repeated", "1"] in lines
    assert "\x1b" not in printed
    sealed = manifest.read(tmp_path / "out.jsonl")
    assert sealed.kind == "sft_data"
    assert sealed.facts["rows"] == 2
    assert sealed.facts["processors"][0]["dropped"] == {"incorrect": 1, "repeated": 1}
    assert manifest.damage(tmp_path / "out.jsonl", sealed) == []


def test_the_manifest_names_the_stage_that_made_the_data(tmp_path, monkeypatch):
    write_rows(tmp_path / "in.jsonl", [solution(1)])
    (tmp_path / "identity.json").write_text(json.dumps({"digest": "abc", "fields": {}}))
    monkeypatch.setenv(ENV_IDENTITY, str(tmp_path / "identity.json"))
    assert main(arguments(tmp_path)) == 0
    assert manifest.read(tmp_path / "out.jsonl").identity.digest == "abc"


def test_the_same_command_gives_the_same_bytes(tmp_path):
    write_rows(tmp_path / "in.jsonl", [solution(number) for number in range(100)])
    main(arguments(tmp_path))
    first = (tmp_path / "out.jsonl").read_bytes()
    main(arguments(tmp_path))
    assert (tmp_path / "out.jsonl").read_bytes() == first
    main(arguments(tmp_path, "++random_seed=1"))
    assert (tmp_path / "out.jsonl").read_bytes() != first


def test_progress_is_reported_where_the_launcher_says(tmp_path, monkeypatch):
    write_rows(tmp_path / "in.jsonl", [solution(number) for number in range(1500)])
    monkeypatch.setenv(ENV_PROGRESS, str(tmp_path / "progress.json"))
    assert main(arguments(tmp_path)) == 0
    progress = Progress.read(tmp_path / "progress.json")
    assert (progress.done, progress.total, progress.unit, progress.note) == (1500, 1500, "rows", "written")


def test_no_row_left_is_an_error_that_says_why_and_keeps_what_was_there(tmp_path, capsys):
    write_rows(tmp_path / "in.jsonl", [solution(1)])
    main(arguments(tmp_path))
    before = (tmp_path / "out.jsonl").read_bytes()
    write_rows(tmp_path / "in.jsonl", [solution(number, symbolic_correct=False) for number in range(3)])
    assert main(arguments(tmp_path)) == 2
    assert "no row is left; most were dropped by ReadData: incorrect (3 rows)" in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert manifest.damage(tmp_path / "out.jsonl", manifest.read(tmp_path / "out.jsonl")) == []
    assert not list(tmp_path.glob(".tmp*"))


def test_a_bad_line_late_in_the_data_leaves_no_half_output(tmp_path, capsys):
    path = write_rows(tmp_path / "in.jsonl", [solution(number) for number in range(2500)])
    with open(path, "a") as file:
        file.write("{\n")
    assert main(arguments(tmp_path)) == 2
    assert "in.jsonl:2501" in capsys.readouterr().err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["in.jsonl"]


def test_killed_while_writing_it_leaves_the_old_output_whole(tmp_path):
    write_rows(tmp_path / "in.jsonl", [solution(1)])
    assert main(arguments(tmp_path)) == 0
    old = (tmp_path / "out.jsonl").read_bytes()
    filler = "word " * 200
    write_rows(tmp_path / "in.jsonl", [solution(number, generation=f"{filler}{number}") for number in range(30000)])
    process = subprocess.Popen([*PROGRAM, *arguments(tmp_path)], stdout=subprocess.DEVNULL)
    try:
        while not any(path.stat().st_size for path in tmp_path.glob(".tmp-out.jsonl.*")):
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.001)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "out.jsonl").read_bytes() == old
    assert manifest.damage(tmp_path / "out.jsonl", manifest.read(tmp_path / "out.jsonl")) == []
    assert main(arguments(tmp_path)) == 0
    assert len(read_rows(tmp_path / "out.jsonl")) == 30000


def test_between_new_data_and_its_seal_there_is_no_old_seal(tmp_path, monkeypatch):
    write_rows(tmp_path / "in.jsonl", [solution(1)])
    main(arguments(tmp_path))
    assert manifest_path(tmp_path / "out.jsonl").exists()

    def power_cut(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("skills_pipe.training.prepare.run.seal", power_cut)
    with pytest.raises(KeyboardInterrupt):
        main(arguments(tmp_path))
    assert manifest.read(tmp_path / "out.jsonl") is None


def test_without_a_tokenizer_no_model_library_is_imported(tmp_path):
    write_rows(tmp_path / "in.jsonl", [solution(1)])
    script = (
        "import sys; from skills_pipe.training.prepare_data import main; main(sys.argv[1:]);"
        "print(sorted({'torch', 'transformers', 'tokenizers', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, *arguments(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"})
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("flag", "advice"), [("--config-nam=x", "--config-name"), ("--tokenizer=x", "++key=value")])
def test_an_unknown_option_gets_advice(tmp_path, capsys, flag, advice):
    assert main(arguments(tmp_path, flag)) == 2
    assert advice in capsys.readouterr().err
