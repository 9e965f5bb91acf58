"""What a second submission does: skip, continue, refuse, begin anew; and what comes before and beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.names import manifest_path, owner_path
from skills_pipe.errors import JobFailed, PlanError, StoreError
from skills_pipe.pipeline.cluster.config import EnvVar
from skills_pipe.pipeline.decisions.decide import OnChange
from skills_pipe.pipeline.decisions.preview import preview
from skills_pipe.pipeline.plan import Plan, Resources
from skills_pipe.pipeline.records.store import Run, RunStore
from skills_pipe.pipeline.submit import SubmitFlags, submit
from tests.pipeline.programs import job, local, make, plan_of, shell, training_plan, until


def two_stages(folder: Path, *, text: str = "x", data: Path | None = None, expname: str = "exp") -> Plan:
    """``a`` makes a file, ``b`` makes one from it; ``text`` is an option of ``a``, ``data`` an input."""
    first, second = folder / "a.txt", folder / "b.txt"
    plan = plan_of(job("a", make(first, text), folder), job("b", make(second), folder, "a"), a=first, b=second)
    inputs = (str(data),) if data else ()
    stages = (replace(plan.stages[0], options={"text": text}, inputs=inputs), plan.stages[1])
    return replace(plan, stages=stages, expname=expname)


def actions(plan: Plan, folder: Path, **flags) -> dict[str, str]:
    seen = preview(plan, local(folder), SubmitFlags(**flags))
    return {decision.stage: decision.action.value for decision in seen.decisions}


def test_everything_runs_once(tmp_path):
    plan = two_stages(tmp_path)
    assert submit(plan, local(tmp_path)).actions == {"a": "run", "b": "run"}
    again = submit(plan, local(tmp_path))
    assert again.actions == {"a": "skip", "b": "skip"}
    assert again.job_ids == {} and again.succeeded


def test_the_skipped_stages_are_named(tmp_path, capsys):
    submit(two_stages(tmp_path), local(tmp_path))
    capsys.readouterr()
    submit(two_stages(tmp_path), local(tmp_path))
    assert f"a  skip  finished: {tmp_path}/a.txt" in capsys.readouterr().out


def test_a_preview_writes_nothing_and_shows_the_bytes_of_the_submission(tmp_path):
    plan = two_stages(tmp_path)
    seen = preview(plan, local(tmp_path))
    assert list(tmp_path.iterdir()) == []
    submission = submit(plan, local(tmp_path))
    scripts = {path.stem: path.read_text() for path in (submission.run_dir / "scripts").iterdir()}
    assert scripts == dict(seen.scripts)


def test_what_a_stage_made_carries_its_identity(tmp_path):
    submission = submit(two_stages(tmp_path), local(tmp_path))
    identity = Run(submission.run_dir).identity("a")
    assert manifest.read(tmp_path / "a.txt").identity == identity
    assert Run(submission.run_dir).identity("b").fields["inputs"] == {f"{tmp_path}/a.txt": f"stage:{identity.digest}"}


def test_a_stage_that_reads_what_another_run_has_made_is_the_same_as_in_a_plan_with_it(tmp_path):
    both = two_stages(tmp_path)
    submit(both, local(tmp_path))
    reader = replace(both.stage("b"), upstream=(), inputs=(f"{tmp_path}/a.txt",))
    alone = replace(both, expname="alone", stages=(reader,), jobs=(replace(both.job("b"), edges=()),))
    assert actions(alone, tmp_path) == {"b": "skip"}
    (tmp_path / "a.txt").write_text("by hand")
    manifest_path(tmp_path / "a.txt").unlink()
    assert actions(alone, tmp_path) == {"b": "refuse"}, "the control"


# Changes


def test_a_changed_option_is_refused_with_its_name_and_values(tmp_path):
    submit(two_stages(tmp_path), local(tmp_path))
    with pytest.raises(PlanError) as caught:
        submit(two_stages(tmp_path, text="y"), local(tmp_path))
    message = str(caught.value)
    assert 'option text: "x" -> "y"' in message
    assert "--on_change=continue" in message and "--on_change=restart" in message
    assert message.count("\n") == 0, "stage b follows a: it is not told again"
    assert RunStore(tmp_path / "jobs").latest("exp").number == 1, "nothing was recorded"


def test_a_changed_input_is_noticed(tmp_path):
    data = tmp_path / "data.txt"
    data.write_text("one")
    submit(two_stages(tmp_path, data=data), local(tmp_path))
    assert actions(two_stages(tmp_path, data=data), tmp_path) == {"a": "skip", "b": "skip"}
    data.write_text("three")
    assert actions(two_stages(tmp_path, data=data), tmp_path) == {"a": "refuse", "b": "refuse"}


def test_restart_sets_the_old_output_aside(tmp_path, capsys):
    submit(two_stages(tmp_path), local(tmp_path))
    restarted = submit(two_stages(tmp_path, text="y"), local(tmp_path), flags=SubmitFlags(on_change=OnChange.RESTART))
    assert restarted.actions == {"a": "restart", "b": "restart"}
    assert (tmp_path / "a.txt").read_text() == "y"
    aside = tmp_path / "old_a.txt.1"
    told = capsys.readouterr().out
    assert told.count(" is made anew; ") == 2
    assert f"{tmp_path / 'a.txt'} is made anew; the old one is {aside}\n" in told
    assert aside.read_text() == "x"
    assert json.loads(manifest_path(aside).read_text())["kind"] == "test"


BESIDE = ("metrics.jsonl", "tensorboard")


def with_metrics(folder: Path, lr: int) -> Plan:
    """A training that writes metrics, by options that decide what it makes."""
    plan = training_plan(folder, "finish", jobs=1)
    beside = tuple(str(folder / "logs" / name) for name in BESIDE)
    stage = replace(plan.stages[0], options={"lr": lr}, set_aside_with=beside)
    return replace(plan, stages=(stage, plan.stages[1]))


def test_restart_sets_the_metrics_of_the_old_output_aside_with_it(tmp_path, capsys):
    submit(with_metrics(tmp_path, 1), local(tmp_path))
    metrics, events = (tmp_path / "logs" / name for name in BESIDE)
    for number in (1, 2):
        events.mkdir(exist_ok=True, parents=True)
        (events / f"events.{number}").write_text("")
        metrics.write_text(f"of run {number}")
        flags = SubmitFlags(on_change=OnChange.RESTART)
        assert submit(with_metrics(tmp_path, number + 1), local(tmp_path), flags=flags).actions["sft"] == "restart"
        aside = metrics.with_name(f"old_metrics.jsonl.{number}")
        assert aside.read_text() == f"of run {number}" and not metrics.exists()
        assert (tmp_path / f"old_checkpoints.{number}").is_dir()
        assert [path.name for path in events.with_name(f"old_tensorboard.{number}").iterdir()] == [f"events.{number}"]
        assert not events.exists()
        assert f"{metrics} is made anew; the old one is {aside}\n" in capsys.readouterr().out


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def sealed_or_half_done(folder: Path, *, half_done: bool) -> None:
    """A training that was submitted, with metrics; its checkpoints without their manifest if it is ``half_done``."""
    submit(with_metrics(folder, 1), local(folder))
    if half_done:
        manifest_path(folder / "checkpoints").unlink()
    metrics = folder / "logs" / "metrics.jsonl"
    metrics.parent.mkdir(exist_ok=True)
    metrics.write_text("of run 1")


ANEW = SubmitFlags(on_change=OnChange.RESTART)


@pytest.mark.parametrize("half_done", [False, True])
def test_where_something_cannot_be_set_aside_everything_stands_as_before(tmp_path, half_done):
    sealed_or_half_done(tmp_path, half_done=half_done)
    # Its own name is as long as names may be, so that "old_" has no room.
    long = tmp_path / "logs" / ("x" * 255)
    long.write_text("of run 1")
    before = contents(tmp_path)
    plan = with_metrics(tmp_path, 2)
    stage = plan.stages[0]
    plan = replace(plan, stages=(replace(stage, set_aside_with=(*stage.set_aside_with, str(long))), plan.stages[1]))
    with pytest.raises(StoreError, match=r"x{255} cannot be read or written"):
        submit(plan, local(tmp_path), flags=ANEW)
    assert contents(tmp_path) == before
    assert not [*(tmp_path / "logs").glob("old_*"), *tmp_path.glob("old_*")]
    # The control: with a name of a usual length it begins anew.
    long.rename(tmp_path / "logs" / "x")
    assert submit(with_metrics(tmp_path, 2), local(tmp_path), flags=ANEW).actions["sft"] == "restart"


@pytest.mark.parametrize("half_done", [False, True])
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_restart_that_dies_while_it_sets_aside_is_still_a_restart(tmp_path, monkeypatch, half_done, renames):
    sealed_or_half_done(tmp_path, half_done=half_done)
    (tmp_path / "logs" / "tensorboard").mkdir()
    rename, done = os.rename, []

    def dies(before: str, after: str) -> None:
        if Path(after).name.startswith("old_"):
            if len(done) == renames:
                raise KeyboardInterrupt
            done.append(before)
        rename(before, after)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "rename", dies)
        submit(with_metrics(tmp_path, 2), local(tmp_path), flags=ANEW)
    assert len(done) == renames and (tmp_path / "checkpoints").is_dir(), "the output goes last"
    assert submit(with_metrics(tmp_path, 2), local(tmp_path), flags=ANEW).actions["sft"] == "restart"
    assert (tmp_path / "logs" / "old_metrics.jsonl.1").read_text() == "of run 1"
    assert (tmp_path / "old_checkpoints.1").is_dir()
    # The control: the record names what is made now, so that it goes on if it is stopped.
    owner = json.loads(owner_path(tmp_path / "checkpoints").read_text())
    assert owner["identity"]["digest"] == manifest.read(tmp_path / "checkpoints").identity.digest


def test_metrics_stay_where_a_training_goes_on_or_is_refused(tmp_path):
    """The control: only what begins anew writes other metrics."""
    submit(with_metrics(tmp_path, 1), local(tmp_path))
    metrics = tmp_path / "logs" / "metrics.jsonl"
    metrics.parent.mkdir(exist_ok=True)
    metrics.write_text("of run 1")
    with pytest.raises(PlanError):
        submit(with_metrics(tmp_path, 2), local(tmp_path))
    submit(with_metrics(tmp_path, 2), local(tmp_path), flags=SubmitFlags(on_change=OnChange.CONTINUE))
    assert metrics.read_text() == "of run 1" and not list(metrics.parent.glob("old_*"))


def test_a_plan_from_before_this_was_named_so_or_at_all_can_be_read():
    plan = with_metrics(Path("/w"), 1)
    assert Plan.from_json(plan.to_json()) == plan
    value = plan.to_json()
    for stage in value["stages"]:
        del stage["set_aside_with"]
    assert Plan.from_json(value).stages[0].set_aside_with == ()
    for before, read in (
        ("/w/metrics.jsonl", ("/w/metrics.jsonl",)),
        (["/w/metrics.jsonl", "/w/loss.png"], ("/w/metrics.jsonl", "/w/loss.png")),
        (None, ()),
    ):
        value["stages"][0]["metrics"] = before
        assert Plan.from_json(value).stages[0].set_aside_with == read


def test_continue_keeps_what_is_there(tmp_path):
    """More steps for a finished training: the checkpoints stay, the seal is broken until it is done again."""
    submit(training_plan(tmp_path, "finish", jobs=1, total=2), local(tmp_path))
    longer = training_plan(tmp_path, "step", jobs=1, total=3)
    longer = replace(longer, stages=(replace(longer.stages[0], options={"steps": 3}), longer.stages[1]))
    submission = submit(longer, local(tmp_path), flags=SubmitFlags(on_change=OnChange.CONTINUE))
    assert submission.actions["sft"] == "continue"
    assert sorted(path.name for path in (tmp_path / "checkpoints").glob("step_*")) == ["step_2", "step_3"]
    assert manifest.read(tmp_path / "checkpoints").identity.fields["options"] == {"steps": 3}


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("policy.train_global_batch_size", "goes on from no checkpoint of another"),
        ("policy.dtensor_cfg.lora_cfg.dim", "goes on from no checkpoint of another"),
        ("policy.optimizer.name", "goes on only where both keep the same states"),
        ("policy.lr", None),
    ],
)
def test_going_on_under_what_checkpoints_are_made_of_is_told_before_the_queue(tmp_path, key, told):
    def plan(value: str) -> Plan:
        made = two_stages(tmp_path)
        return replace(made, stages=(replace(made.stages[0], options={f"++{key}": value}), made.stages[1]))

    submit(plan("8"), local(tmp_path))
    seen = preview(plan("4"), local(tmp_path), SubmitFlags(on_change=OnChange.CONTINUE))
    found = [finding.what for finding in seen.findings]
    assert found == ([] if told is None else [f'stage \'a\': the trainer {told}: ++{key}: "8" -> "4"'])
    assert not seen.errors


def test_what_was_told_to_go_on_and_was_stopped_goes_on_without_being_told_again(tmp_path):
    submit(training_plan(tmp_path, "finish", jobs=1, total=2), local(tmp_path))

    def longer(steps: int, *moods: str) -> Plan:
        made = training_plan(tmp_path, *moods, jobs=1, total=steps)
        return replace(made, stages=(replace(made.stages[0], options={"steps": steps}), made.stages[1]))

    with pytest.raises(JobFailed):
        submit(longer(4, "crash"), local(tmp_path), flags=SubmitFlags(on_change=OnChange.CONTINUE))
    assert submit(longer(4, "finish"), local(tmp_path)).actions["sft"] == "continue"
    with pytest.raises(PlanError, match="steps"):  # control: other options still have to be answered for
        submit(longer(5, "finish"), local(tmp_path))


def test_rerun_runs_finished_stages(tmp_path):
    submit(two_stages(tmp_path), local(tmp_path))
    again = submit(two_stages(tmp_path), local(tmp_path), flags=SubmitFlags(rerun=True))
    assert again.actions == {"a": "restart", "b": "restart"} and again.succeeded


def test_an_output_that_nobody_has_sealed_is_not_overwritten(tmp_path):
    (tmp_path / "a.txt").write_text("mine")
    with pytest.raises(PlanError, match=r"a\.txt exists, and nothing tells what made it"):
        submit(two_stages(tmp_path), local(tmp_path))
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_a_damaged_output_is_made_again(tmp_path):
    submit(two_stages(tmp_path), local(tmp_path))
    (tmp_path / "b.txt").write_text("")
    again = submit(two_stages(tmp_path), local(tmp_path))
    assert again.actions == {"a": "skip", "b": "restart"} and again.succeeded


def test_what_is_only_a_step_to_finished_work_is_not_made_again(tmp_path):
    submit(two_stages(tmp_path), local(tmp_path))
    (tmp_path / "a.txt").unlink()
    assert actions(two_stages(tmp_path), tmp_path) == {"a": "not needed", "b": "skip"}
    (tmp_path / "b.txt").unlink()
    assert actions(two_stages(tmp_path), tmp_path) == {"a": "run", "b": "run"}


def test_explain_says_for_each_stage_what_changed(tmp_path, capsys):
    submit(two_stages(tmp_path), local(tmp_path))
    capsys.readouterr()
    flags = SubmitFlags(on_change=OnChange.RESTART, explain=True)
    submit(two_stages(tmp_path, text="y"), local(tmp_path), flags=flags)
    out = capsys.readouterr().out
    assert 'option text: "x" -> "y"' in out
    assert f'input {tmp_path}/a.txt: "stage:' in out


# Half-done work


def test_a_half_done_output_goes_on_where_its_identity_is_the_same(tmp_path):
    with pytest.raises(JobFailed):
        submit(training_plan(tmp_path, "step", jobs=1, total=2), local(tmp_path))
    assert submit(training_plan(tmp_path, "step", jobs=1, total=2), local(tmp_path)).succeeded


def test_a_half_done_output_of_another_identity_is_refused(tmp_path):
    plan = training_plan(tmp_path, "step", jobs=1, total=2)
    with pytest.raises(JobFailed):
        submit(plan, local(tmp_path))
    other = replace(plan, stages=(replace(plan.stages[0], options={"lr": 1}), plan.stages[1]))
    with pytest.raises(PlanError, match=r"was begun otherwise: option lr: \(not set\) -> 1"):
        submit(other, local(tmp_path))


# Before and beside


def test_a_folder_that_the_run_itself_would_change_is_told(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows").write_text("x")
    plan = two_stages(tmp_path, data=tmp_path / "data")
    assert not preview(plan, local(tmp_path)).findings
    inside = replace(plan, stages=(plan.stages[0], replace(plan.stages[1], output=str(tmp_path / "data" / "b.txt"))))
    (told,) = preview(inside, local(tmp_path)).findings
    assert "data, which is read: a later run will find that changed" in told.what
    # The control: what is sealed is known by its manifest, whatever is added.
    manifest.seal(tmp_path / "data", kind="data")
    assert not preview(inside, local(tmp_path)).findings


def test_a_missing_input_is_refused(tmp_path):
    with pytest.raises(PlanError, match=r"stage 'a' reads .*/nowhere\.txt, which does not exist"):
        submit(two_stages(tmp_path, data=tmp_path / "nowhere.txt"), local(tmp_path))


def test_all_problems_are_told_at_once(tmp_path):
    plan = replace(two_stages(tmp_path, data=tmp_path / "nowhere.txt"), run_after=("before",))
    (tmp_path / "b.txt").write_text("mine")
    with pytest.raises(PlanError) as caught:
        submit(plan, local(tmp_path))
    assert len(str(caught.value).splitlines()) == 3


def test_an_input_of_a_stage_is_known_by_what_made_it(tmp_path):
    first = submit(two_stages(tmp_path), local(tmp_path))
    later = two_stages(tmp_path / "later", data=tmp_path / "b.txt", expname="later")
    seen = preview(replace(later, run_after=(str(first.run_dir),)), local(tmp_path))
    digest = Run(first.run_dir).identity("b").digest
    assert seen.identities["a"].fields["inputs"] == {str(tmp_path / "b.txt"): f"stage:{digest}"}


def test_a_run_after_an_unknown_one_is_refused_with_the_nearest_name(tmp_path):
    submit(two_stages(tmp_path), local(tmp_path))
    plan = replace(two_stages(tmp_path / "2", expname="two"), run_after=("exq",))
    with pytest.raises(PlanError, match=r"there is no experiment 'exq' .*: did you mean 'exp'\?"):
        submit(plan, local(tmp_path))


def test_a_run_after_a_failed_one_is_refused(tmp_path):
    with pytest.raises(JobFailed):
        submit(plan_of(job("a", shell("exit 1"), tmp_path)), local(tmp_path))
    plan = replace(two_stages(tmp_path, expname="two"), run_after=("exp",))
    with pytest.raises(PlanError, match="'exp' did not end well: its stage 'a' failed"):
        submit(plan, local(tmp_path))


def test_the_newest_run_of_an_experiment_counts(tmp_path):
    flag = tmp_path / "flag"
    plan = plan_of(job("a", shell(f"test -e {flag}"), tmp_path))
    with pytest.raises(JobFailed):
        submit(plan, local(tmp_path))
    flag.touch()
    submit(plan, local(tmp_path))
    assert submit(replace(two_stages(tmp_path, expname="two"), run_after=("exp",)), local(tmp_path)).succeeded


_HOLD = """
import sys
from pathlib import Path
from skills_pipe.pipeline.submit import submit
from tests.pipeline.programs import job, local, make, plan_of, shell
folder = Path(sys.argv[1])
wait = shell(f"touch {folder}/runs; until [ -e {folder}/go ]; do sleep 0.02; done")
submit(plan_of(job("a", wait, folder), a=folder / "a.txt"), local(folder))
"""


def test_a_refused_submission_leaves_outputs_and_their_owners_as_they_were(tmp_path):
    plan = two_stages(tmp_path)
    submit(plan, local(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    # One machine is no two nodes: that is found out after the outputs were claimed and set aside.
    large = replace(plan.jobs[1], resources=Resources(num_nodes=2))
    with pytest.raises(PlanError, match="asks for 2 nodes"):
        submit(replace(plan, jobs=(plan.jobs[0], large)), local(tmp_path), flags=SubmitFlags(rerun=True))
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert actions(plan, tmp_path) == {"a": "skip", "b": "skip"}


def test_an_input_that_nobody_may_read_is_told(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0)
    with pytest.raises(PlanError, match="data cannot be read"):
        submit(two_stages(tmp_path, data=tmp_path / "data"), local(tmp_path))


@pytest.fixture
def live_run(tmp_path):
    """A run in another process that works on ``a.txt`` until the file ``go`` appears."""
    root = Path(__file__).parents[2]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], cwd=root, **quiet)
    until((tmp_path / "runs").exists, "the other run runs")
    yield process
    (tmp_path / "go").touch()
    process.wait()


def test_two_live_runs_never_write_the_same_output(tmp_path, live_run):
    with pytest.raises(StoreError, match="is being written by stage 'a' of another run") as caught:
        submit(two_stages(tmp_path, expname="two"), local(tmp_path))
    assert "ns cancel exp/run-1" in str(caught.value)


def test_a_run_after_one_that_still_runs_here_is_refused(tmp_path, live_run):
    plan = replace(two_stages(tmp_path / "2", expname="two"), run_after=("exp",))
    with pytest.raises(PlanError, match=f"'exp' still runs in process {live_run.pid} on "):
        submit(plan, local(tmp_path))


def test_the_output_of_a_dead_run_is_taken_over(tmp_path, live_run):
    record = RunStore(tmp_path / "jobs").latest("exp").submission
    live_run.kill()
    live_run.wait()
    (tmp_path / "go").touch()
    until(lambda: not record.owner.is_alive, "the other run is dead")
    until(lambda: submit_or_none(two_stages(tmp_path, expname="two"), tmp_path), "its orphan has ended too")
    assert (tmp_path / "a.txt").read_text() == "x"
    assert "/two/run-" in json.loads(owner_path(tmp_path / "a.txt").read_text())["run"]


def submit_or_none(plan: Plan, folder: Path):
    try:
        return submit(plan, local(folder))
    except StoreError:
        return None


# Environment


def test_secrets_reach_local_jobs_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "value-of-a-secret")
    cluster = replace(local(tmp_path), env=(EnvVar(name="MY_TOKEN"), EnvVar(name="MODE", value="a $b")))
    submission = submit(plan_of(job("a", shell("echo $MY_TOKEN, $MODE"), tmp_path)), cluster)
    log = tmp_path / "logs" / "main_a_local-1.log"
    assert log.read_text() == "value-of-a-secret, a $b\n"
    records = b"".join(path.read_bytes() for path in submission.run_dir.rglob("*") if path.is_file())
    assert b"value-of-a-secret" not in records
