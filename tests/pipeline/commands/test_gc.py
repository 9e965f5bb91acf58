"""``ns gc`` on a real Slurm: what live or young runs need stays, all else goes."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from skills_pipe.pipeline.cli import main, run_cmd
from skills_pipe.pipeline.code.collect import find_garbage, remove
from skills_pipe.pipeline.records.store import RunStore
from skills_pipe.pipeline.transport.here import Here

pytestmark = pytest.mark.slurm

LONG_AGO = 1_000_000_000


@pytest.fixture
def cluster(slurm, tmp_path, monkeypatch):
    """The path of a configuration; the working folder is no repository, its code is the package."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "a secret")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    path = tmp_path / "here.yaml"
    path.write_text(
        f"executor: slurm\njob_dir: {tmp_path}/jobs\naccount: root\npartition: batch\ndefault_timeout: 10:00\n"
    )
    return str(path)


@pytest.fixture
def jobs(tmp_path):
    return tmp_path / "jobs"


def submitted(cluster, expname, command="true", *, wait=True):
    """A run; each has code of its own, for a file of this name lies in the repository."""
    if not Path(".git").exists():
        subprocess.run(["git", "init", "-q"], check=True)
    Path(f"{expname}.py").write_text(expname)
    submission = run_cmd(command=command, expname=expname, cluster=cluster, reuse_code=False)
    return submission.wait() if wait else submission


def aged(jobs, submission):
    """The run and its code as if it had been submitted long ago."""
    record = submission.run_dir / "submission.json"
    value = json.loads(record.read_text())
    record.write_text(json.dumps({**value, "submitted_at": LONG_AGO}))
    folder = jobs / "code" / code_of(submission)
    os.utime(folder, (LONG_AGO, LONG_AGO))
    return folder


def code_of(submission):
    return json.loads((submission.run_dir / "code.json").read_text())["hash"]


def collect(cluster, *words):
    return main(["gc", f"--cluster={cluster}", *words])


def test_code_and_secrets_of_runs_that_are_long_over_go_and_all_else_stays(cluster, jobs, capsys):
    over, young = submitted(cluster, "over"), submitted(cluster, "young")
    live = submitted(cluster, "live", "sleep 600", wait=False)
    gone, stays = aged(jobs, over), aged(jobs, live)
    capsys.readouterr()
    assert collect(cluster, "--dry_run") == 0
    told = capsys.readouterr().out
    assert f"code {gone.name}" in told
    assert "secrets of over/run-1" in told
    assert "archives of code: 1 can go (" in told
    assert gone.is_dir(), "a dry run removes nothing"
    assert collect(cluster, "--yes") == 0
    assert sorted(path.name for path in (jobs / "code").iterdir()) == sorted([stays.name, code_of(young)])
    secrets = [(run / "secrets.env").stat().st_size for run in (over.run_dir, young.run_dir, live.run_dir)]
    assert [size > 0 for size in secrets] == [False, True, True]
    live.cancel()


def test_code_that_a_younger_run_uses_too_stays(cluster, jobs):
    first = submitted(cluster, "first")
    aged(jobs, first)
    second = run_cmd(command="true", expname="second", cluster=cluster, reuse_code_exp="first").wait()
    assert code_of(second) == code_of(first)
    os.utime(jobs / "code" / code_of(first), (LONG_AGO, LONG_AGO))
    assert collect(cluster, "--yes") == 0
    assert [path.name for path in (jobs / "code").iterdir()] == [code_of(first)]


def test_code_that_comes_to_be_used_while_it_is_removed_stays(cluster, jobs):
    folder = aged(jobs, submitted(cluster, "over"))
    found = find_garbage(RunStore(jobs), str(jobs), Here(), before=LONG_AGO + 1)
    assert [item.name for item in found.code] == [folder.name]
    os.utime(folder)  # as a submission does
    remove(found, str(jobs), Here())
    assert folder.is_dir()


def test_what_was_left_by_unpacking_that_was_cut_short_goes(cluster, jobs):
    folder = jobs / "code" / f"{'0' * 20}.abcdef"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep").chmod(0o500)
    os.utime(folder, (LONG_AGO, LONG_AGO))
    assert collect(cluster, "--yes") == 0
    assert list((jobs / "code").iterdir()) == []


def test_other_folders_are_left_alone(cluster, jobs):
    other = jobs / "code" / "notes"
    other.mkdir(parents=True)
    os.utime(other, (LONG_AGO, LONG_AGO))
    assert collect(cluster, "--yes") == 0
    assert other.is_dir()


def test_nobody_is_asked_where_nobody_is(cluster, jobs, capsys, monkeypatch):
    aged(jobs, submitted(cluster, "over"))
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        assert collect(cluster) == 2
    assert "there is nobody to ask whether to remove it: add --yes" in capsys.readouterr().err
    assert len(list((jobs / "code").iterdir())) == 1


def test_without_code_there_is_nothing_to_do(cluster, capsys):
    assert collect(cluster, "--yes") == 0
    assert capsys.readouterr().out == "archives of code: 0 can go (0.0 MB), 0 stay (0.0 MB)\n"
