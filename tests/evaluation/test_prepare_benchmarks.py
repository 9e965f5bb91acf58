"""The program that writes benchmark data: whole files with manifests, and mistakes told before anything is written."""

import json

import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.evaluation.prepare_benchmarks import main


def test_each_split_is_written_and_sealed(tmp_path, capsys):
    assert main(["arithmetic", f"--data_dir={tmp_path}", "++arithmetic.train_count=30"]) == 0
    for split, count in (("test", 500), ("train", 30)):
        path = tmp_path / "arithmetic" / f"{split}.jsonl"
        assert len([json.loads(line) for line in path.read_text().splitlines()]) == count
        assert manifest.read(path).facts["rows"] == count
    assert "500 rows" in capsys.readouterr().out


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, *seed in (("a",), ("b",), ("c", "++arithmetic.seed=1")):
        main(["arithmetic", f"--data_dir={tmp_path / name}", "--splits=test", *seed])
    a, b, c = ((tmp_path / name / "arithmetic" / "test.jsonl").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no benchmark is named"),
        (["arithmetik"], "did you mean 'arithmetic'"),
        (["arithmetic", "--split=test"], "unknown option --split (did you mean '--splits'?)"),
        (["arithmetic", "--splits=tests"], "arithmetic has no split 'tests' (--splits): did you mean 'test'?"),
        (["arithmetic", "++arithmetic.sed=1"], "unknown key 'sed': did you mean 'seed'?"),
        (["arithmetic", "++seed=1"], "'seed' does not begin with the name of a chosen benchmark"),
        (["arithmetic", "++arithmetic.seed=1.5"], "seed: 1.5 is no whole number"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, capsys, arguments, message):
    data = tmp_path / "data"
    assert main([*arguments, f"--data_dir={data}"]) == 2
    error = capsys.readouterr().err
    assert message.replace(" (did", ": did").replace("?)", "?") in error
    assert len(error.splitlines()) == 1
    assert not data.exists()
