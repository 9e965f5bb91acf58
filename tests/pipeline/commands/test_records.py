"""``ns status``, ``ns logs`` and ``ns cancel`` on real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from skills_pipe.errors import JobFailed, OptionError, StoreError
from skills_pipe.pipeline.commands import cancel, logs, status
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import RunStore
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, plan_of, shell, until


@pytest.fixture
def records(tmp_path, monkeypatch) -> Path:
    """Records with one run: stage ``good`` printed ten lines, stage ``bad`` failed."""
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "jobs"))
    lines = shell("for i in 1 2 3 4 5 6 7 8 9 10; do echo line $i; done")
    with pytest.raises(JobFailed):
        submit(plan_of(job("good", lines, tmp_path), job("bad", shell("echo oh; exit 1"), tmp_path)), local(tmp_path))
    return tmp_path


def test_status_lists_the_runs(records, capsys):
    assert status.COMMAND.call([], {}) == 0
    out = capsys.readouterr().out
    assert "exp/run-1" in out and "good succeeded" in out and "bad failed" in out


def test_status_of_one_run_shows_its_jobs_and_logs(records, capsys):
    assert status.COMMAND.call(["exp"], {}) == 0
    out = capsys.readouterr().out
    assert "exit code 1" in out and f"{records}/logs/main_bad_local-1.log" in out


def test_status_before_anything_was_submitted(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path))
    assert status.COMMAND.call([], {}) == 0
    assert capsys.readouterr().out == "nothing was submitted yet\n"


def test_an_unknown_experiment_is_answered_with_a_near_one(records):
    with pytest.raises(StoreError, match="did you mean 'exp'"):
        status.COMMAND.call(["exq"], {})


def test_logs_show_the_end_of_each_log(records, capsys):
    assert logs.COMMAND.call(["exp", "--lines=2"], {}) == 0
    out = capsys.readouterr().out
    assert "line 9\nline 10\n" in out and "line 8" not in out and "oh\n" in out


def test_logs_of_one_stage_whole(records, capsys):
    assert logs.COMMAND.call(["exp", "good", "--lines=0"], {}) == 0
    out = capsys.readouterr().out
    assert out.count("line ") == 10 and "oh" not in out


@pytest.mark.parametrize("follow", [[], ["-f"]])
def test_a_job_that_had_nothing_to_say_is_no_error(tmp_path, records, capsys, follow):
    submit(plan_of(job("silent", shell("true"), tmp_path)), local(tmp_path))
    capsys.readouterr()
    assert logs.COMMAND.call(["exp", *follow], {}) == 0
    assert capsys.readouterr().out == "silent: ended without a word\n"


def test_logs_of_an_unknown_stage(records):
    with pytest.raises(StoreError, match=r"no job of 'god' .*did you mean 'good'"):
        logs.COMMAND.call(["exp", "god"], {})


def test_nothing_is_there_to_cancel_when_all_has_ended(records, capsys):
    assert cancel.COMMAND.call(["exp"], {}) == 0
    assert "nothing runs or waits" in capsys.readouterr().out


_LIVE = """
import sys
from pathlib import Path
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import RunStore
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, plan_of, shell
folder = Path(sys.argv[1])
talk = f"echo first; touch {folder}/runs; until [ -e {folder}/go ]; do sleep 0.02; done; echo second"
submit(plan_of(job("talk", shell(talk), folder)), local(folder))
"""


@pytest.fixture
def live(tmp_path, monkeypatch):
    """A run in another process that says ``first``, and ``second`` when the file ``go`` appears."""
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "jobs"))
    process = subprocess.Popen([sys.executable, "-c", _LIVE, str(tmp_path)], stdout=subprocess.DEVNULL)
    until((tmp_path / "runs").exists, "the job runs")
    yield process
    (tmp_path / "go").touch()
    process.wait()


def test_following_shows_what_is_added_and_ends_with_the_job(tmp_path, live):
    program = "from skills_pipe.pipeline.commands.logs import COMMAND; COMMAND.call(['exp', '-f'], {})"
    follower = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    seen = []
    for line in follower.stdout:
        seen.append(line.strip())
        if seen[-1] == "first":
            (tmp_path / "go").touch()
    assert follower.wait() == 0
    assert [line for line in seen if line in ("first", "second")] == ["first", "second"]


_SILENT = _LIVE.replace("echo first; ", "")


def test_a_job_that_has_not_said_anything_yet_is_told_from_one_that_never_will(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "jobs"))
    process = subprocess.Popen([sys.executable, "-c", _SILENT, str(tmp_path)], stdout=subprocess.DEVNULL)
    until((tmp_path / "runs").exists, "the job runs")
    with pytest.raises(StoreError, match=r"has written a log yet \(talk is running\): try again later, or add -f"):
        logs.COMMAND.call(["exp"], {})
    (tmp_path / "go").touch()
    process.wait()


def test_cancelling_a_live_run_stops_it(tmp_path, live, capsys):
    assert cancel.COMMAND.call(["exp", "--wait"], {}) == 0
    assert "exp/run-1: stopping talk" in capsys.readouterr().out
    assert live.wait() != 0
    assert "second" not in (tmp_path / "logs" / "main_talk_local-1.log").read_text()


def test_a_cancelled_run_says_so_and_not_which_signal_came(tmp_path, live, capsys):
    cancel.COMMAND.call(["exp", "--wait"], {})
    capsys.readouterr()
    assert status.COMMAND.call(["exp"], {}) == 0
    out = capsys.readouterr().out
    assert "cancelled by `ns cancel`" in out and "SIGTERM" not in out
    assert "`ns resume exp` submits what is not finished again" in out


def test_negative_control_a_run_that_is_stopped_by_a_signal_names_it(tmp_path, live, capsys):
    live.terminate()
    live.wait()
    assert status.COMMAND.call(["exp"], {}) == 0
    assert "stopped by SIGTERM" in capsys.readouterr().out


_TWO_BRANCHES = """
import sys
from pathlib import Path
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import RunStore
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, plan_of, shell
folder = Path(sys.argv[1])
wait = f"touch {folder}/$NAME_OF_JOB; until [ -e {folder}/go ]; do sleep 0.02; done"
jobs = job("a", shell(wait), folder), job("after-a", shell("true"), folder, "a"), job("b", shell(wait), folder)
submit(plan_of(*jobs), local(folder))
"""


def test_one_stage_can_be_cancelled_with_what_waits_for_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "jobs"))
    process = subprocess.Popen([sys.executable, "-c", _TWO_BRANCHES, str(tmp_path)], stdout=subprocess.DEVNULL)
    until(lambda: (tmp_path / "a").exists() and (tmp_path / "b").exists(), "both run")
    assert cancel.COMMAND.call(["exp", "--stage=a", "--wait"], {}) == 0
    assert "stopping a, after-a" in capsys.readouterr().out
    (tmp_path / "go").touch()
    process.wait()
    states = statuses_of(RunStore(tmp_path / "jobs").latest("exp"))
    assert {name: found.state for name, found in states.items()} == {
        "a": JobState.CANCELLED,
        "after-a": JobState.CANCELLED,
        "b": JobState.SUCCEEDED,
    }
    assert states["a"].reason == "cancelled by `ns cancel`"


def test_all_live_runs_of_an_experiment_are_cancelled_or_the_one_that_is_named(tmp_path, live, capsys):
    (tmp_path / "runs").unlink()
    second = subprocess.Popen([sys.executable, "-c", _LIVE, str(tmp_path)], stdout=subprocess.DEVNULL)
    until((tmp_path / "runs").exists, "the second run works too")
    assert cancel.COMMAND.call(["exp/run-2", "--wait"], {}) == 0
    assert capsys.readouterr().out.splitlines() == ["exp/run-2: stopping talk"]
    assert second.wait() != 0 and live.poll() is None
    assert cancel.COMMAND.call(["exp", "--wait"], {}) == 0
    assert capsys.readouterr().out.splitlines() == ["exp/run-1: stopping talk"]
    assert live.wait() != 0


def test_a_stage_that_is_unknown_is_answered_with_a_near_one(records):
    with pytest.raises(StoreError, match=r"exp has no stage 'god' .*did you mean 'good'"):
        cancel.COMMAND.call(["exp", "--stage=god"], {})


# status


def test_status_as_json_has_every_run(records, capsys):
    assert status.COMMAND.call(["--json"], {}) == 0
    (value,) = json.loads(capsys.readouterr().out)
    assert (value["run"], value["state"]) == ("exp/run-1", "failed")
    assert [stage["state"] for stage in value["stages"]] == ["succeeded", "failed"]


def test_status_of_one_stage(records, capsys):
    assert status.COMMAND.call(["exp", "bad"], {}) == 0
    out = capsys.readouterr().out
    assert "bad  failed" in out and "good" not in out
    assert "-> bad failed (exit code 1): `ns logs exp bad` shows its end; when that is mended, `ns resume exp`" in out


def test_status_of_a_stage_that_is_unknown(records):
    with pytest.raises(StoreError, match=r"exp/run-1 has no stage 'god' .*did you mean 'good'"):
        status.COMMAND.call(["exp", "god"], {})


def test_watching_a_run_that_ended_badly_ends_at_once_with_1(records, capsys):
    assert status.COMMAND.call(["exp", "--watch"], {}) == 1
    assert "bad: failed" in capsys.readouterr().out


def test_watching_a_live_run_ends_with_it(tmp_path, live):
    program = "import sys; from skills_pipe.pipeline.cli import main; sys.exit(main(['status', 'exp', '--watch']))"
    watcher = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    first = watcher.stdout.readline()
    assert first.startswith("talk: running")
    (tmp_path / "go").touch()
    rest = watcher.stdout.read()
    assert watcher.wait() == 0 and "talk: succeeded" in rest


def test_who_stops_watching_stops_nothing_else(tmp_path, live):
    program = "import sys; from skills_pipe.pipeline.cli import main; sys.exit(main(['status', 'exp', '--watch']))"
    watcher = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    watcher.stdout.readline()
    watcher.send_signal(signal.SIGINT)
    assert "exp/run-1 goes on; `ns cancel exp` would stop it" in watcher.stdout.read()
    assert watcher.wait() == 130 and live.poll() is None


def test_who_stops_following_logs_stops_nothing_else(tmp_path, live):
    program = "import sys; from skills_pipe.pipeline.cli import main; sys.exit(main(['logs', 'exp', '-f']))"
    follower = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate()
    assert "exp/run-1 goes on; `ns cancel exp` would stop it" in err
    assert follower.returncode == 130 and live.poll() is None


def test_watching_without_a_name_is_refused(records):
    with pytest.raises(OptionError, match="--watch needs the name of an experiment"):
        status.COMMAND.call(["--watch"], {})


def test_a_part_that_no_job_has_is_answered_with_those_that_exist(records):
    with pytest.raises(OptionError, match=r"no job of exp/run-1 has a part 'server' \(--part\): they have main"):
        logs.COMMAND.call(["exp", "--part=server"], {})
