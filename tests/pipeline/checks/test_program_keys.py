"""Keys of programs that the launcher does not import are judged by these programs, before anything is submitted."""

from pathlib import Path

import pytest

from skills_pipe.pipeline.checks.program_keys import check_keys
from skills_pipe.pipeline.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """``ns check`` of a command; exit code and what was told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "records"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "data" / "arithmetic").mkdir(parents=True)
    (tmp_path / "data" / "arithmetic" / "test.jsonl").write_text("{}\n")
    (tmp_path / "rows.jsonl").write_text("{}\n")

    def check(*words: str) -> tuple[int, str]:
        code = main(["check", *words])
        return code, capsys.readouterr().out

    return check


EVAL = ("eval", "--model=./model", "--output_dir=out", "--data_dir=data", "--benchmarks=arithmetic")
PREPARE = ("prepare_data", "++input_files=rows.jsonl", "++output_path=out.jsonl")


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("++inference.temprature=1", "unknown key 'inference.temprature': did you mean 'inference.temperature'?"),
        ("++inference.top_p=2", "inference.top_p must be above 0 and at most 1"),
        ("++max_samples=many", "max_samples"),
    ],
)
def test_keys_of_an_evaluation(run, key, told):
    code, text = run(*EVAL, "--server_type=hf", key)
    assert code == 2 and told in text
    assert run(*EVAL, "--server_type=hf", "++inference.temperature=1")[0] == 0


def test_sampled_runs_are_judged_as_such(run):
    words = [word.replace("arithmetic", "arithmetic:4") if "benchmarks" in word else word for word in EVAL]
    code, text = run(*words, "--server_type=hf", "++inference.temperature=0")
    assert code == 2 and "several seeds at temperature 0 give the same answers" in text


def test_a_server_that_is_not_there_yet_is_no_mistake(run):
    code, text = run(*EVAL, "--server_type=openai", "--server_address=http://x", "++inference.temperature=1")
    assert code == 0, text


def test_keys_of_prepared_data(run, tmp_path):
    code, text = run(*PREPARE, "++inptu_key=a")
    assert code == 2 and "unknown key 'inptu_key' (override): did you mean 'input_key'?" in text
    assert run(*PREPARE, "++input_key=a")[0] == 0
    assert not (tmp_path / "out.jsonl").exists()


def test_a_configuration_of_ones_own_is_read(run, tmp_path):
    assert "there is no configuration 'math_stf'" in run(*PREPARE, "--config_name=math_stf")[1]


def test_without_keys_no_program_is_asked(run):
    assert "keys of the evaluation  not checked  none are given" in run(*EVAL, "--server_type=hf")[1]


def test_a_program_that_breaks_is_no_mistake_of_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    Path(tmp_path, "broken_program.py").write_text("raise ImportError('an extra is missing')\n")
    checked = check_keys("keys", [("broken_program", "++a=1")])
    assert checked.findings == () and checked.left_out == "broken_program cannot be asked here"


def test_all_that_a_program_says_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    Path(tmp_path, "strict_program.py").write_text(
        "import sys\n"
        "assert sys.argv[1] == '--check'\n"
        "print('error: one\\nnoise\\nerror: two', file=sys.stderr)\n"
        "sys.exit(2)\n"
    )
    checked = check_keys("keys", [("strict_program", "a"), ("strict_program", "a"), ("strict_program", "b")])
    assert [finding.what for finding in checked.findings] == ["one", "two"]
