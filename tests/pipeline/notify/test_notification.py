"""A webhook is told how a run ended: once, by the last job of the run, and nobody else learns its address."""

from __future__ import annotations

import contextlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.errors import ClusterConfigError, JobFailed
from skills_pipe.pipeline.cluster.config import ExecutorKind
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.cluster.notify import Notify, Occasion
from skills_pipe.pipeline.notification import with_notification, without_notification
from skills_pipe.pipeline.plan import EdgeKind
from skills_pipe.pipeline.submit import submit
from tests.pipeline.notify.listener import listening
from tests.pipeline.programs import job, local, make, plan_of, shell, training_plan


@pytest.fixture
def hook():
    with listening() as listener:
        yield listener


@pytest.fixture
def here(tmp_path, hook):
    """This machine, which tells the listener."""
    return replace(local(tmp_path), notify=Notify(webhook=hook.url))


def run(plan, cluster):
    return submit(with_notification(plan, cluster), cluster)


def test_a_run_that_ends_well_is_told_of_once(tmp_path, here, hook):
    run(plan_of(job("a", shell("true"), tmp_path), job("b", shell("true"), tmp_path, "a")), here)
    assert hook.texts == ["exp/run-1 ended well. ns status exp"]


def test_what_is_not_finished_is_named(tmp_path, here, hook):
    with pytest.raises(JobFailed):
        run(plan_of(job("bad", shell("exit 3"), tmp_path), job("b", shell("true"), tmp_path, "bad")), here)
    assert hook.texts == ["exp/run-1 did not end well: not finished: b, bad. ns status exp"]


@pytest.mark.parametrize(
    ("moods", "text"),
    [
        (["step"], "exp/run-1 ended well. ns status exp"),
        (["crash", "finish"], "exp/run-1 ended well. ns status exp"),
        (["refuse"], "exp/run-1 did not end well: not finished: convert, sft. ns status exp"),
    ],
)
def test_a_chain_is_finished_when_one_of_its_jobs_has_finished_the_work(tmp_path, here, hook, moods, text):
    plan = training_plan(tmp_path, *moods, jobs=2)
    with contextlib.suppress(JobFailed):
        run(plan, here)
    assert hook.texts == [text]


@pytest.mark.parametrize(
    ("on", "command", "count"),
    [
        ((Occasion.FAILURE,), "true", 0),
        ((Occasion.FAILURE,), "false", 1),
        ((Occasion.END,), "true", 1),
        ((Occasion.END,), "false", 0),
        ((), "false", 0),
    ],
)
def test_only_the_occasions_that_were_asked_for_are_told(tmp_path, hook, on, command, count):
    cluster = replace(local(tmp_path), notify=Notify(webhook=hook.url, on=on))
    with contextlib.suppress(JobFailed):
        run(plan_of(job("a", shell(command), tmp_path)), cluster)
    assert len(hook.texts) == count


def test_nothing_is_told_when_nothing_had_to_run(tmp_path, here, hook):
    plan = plan_of(job("a", make(tmp_path / "out"), tmp_path), a=tmp_path / "out")
    run(plan, here)
    assert run(plan, here).actions == {"a": "skip", "notify": "not needed"}
    assert len(hook.texts) == 1


def test_a_stage_whose_output_is_gone_is_not_made_again_for_the_telling(tmp_path, here, hook):
    plan = plan_of(
        job("a", make(tmp_path / "a"), tmp_path),
        job("b", make(tmp_path / "b"), tmp_path, "a"),
        a=tmp_path / "a",
        b=tmp_path / "b",
    )
    run(plan, here)
    (tmp_path / "a").unlink()
    (tmp_path / "a.manifest.json").unlink()
    assert run(plan, here).actions["a"] == "not needed"


def test_the_address_stands_nowhere_when_all_is_over(tmp_path, here, hook):
    submission = run(plan_of(job("a", shell("env"), tmp_path)), here)
    assert hook.texts
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and b"hook-with-a-secret" in path.read_bytes()]
    assert holders == [], "nor in scripts, plans, logs and the environment of jobs"
    assert not (submission.run_dir / "webhook").exists()
    assert "hook-with-a-secret" not in repr(here)


def test_the_address_is_for_its_owner_only_while_it_waits(tmp_path, here):
    show = shell(f"stat -c %a {tmp_path}/jobs/experiments/exp/run-1/webhook > {tmp_path}/mode")
    run(plan_of(job("a", show, tmp_path)), here)
    assert (tmp_path / "mode").read_text() == "600\n"


@pytest.mark.parametrize("program", ["curl", "python3", "nothing"])
def test_it_is_told_by_whatever_the_node_has(tmp_path, here, hook, monkeypatch, program):
    tools = tmp_path / "tools"
    tools.mkdir()
    needed = ["bash", "cat", "tr", "head", "rm", *([] if program == "nothing" else [program])]
    for name in needed:
        (tools / name).symlink_to(sys.executable if name == "python3" else Path(shutil.which(name)).resolve())
    plan = with_notification(plan_of(job("a", shell("true"), tmp_path)), here)
    last = plan.job("exp-notify")
    alone = replace(last.command, argv=(shutil.which("bash"), "-c", f"PATH={tools}\n{last.command.argv[2]}"))
    submission = submit(replace(plan, jobs=(plan.jobs[0], replace(last, command=alone))), here)
    assert submission.succeeded, "a webhook that cannot be told is no failure of the run"
    log = next((tmp_path / "logs").glob("main_exp-notify_*")).read_text()
    assert len(hook.texts) == (0 if program == "nothing" else 1)
    assert ("neither curl nor python3" in log) == (program == "nothing")


def test_a_webhook_that_refuses_does_not_make_the_run_fail(tmp_path, here, hook):
    hook.status = 404
    assert run(plan_of(job("a", shell("true"), tmp_path)), here).succeeded
    assert "the webhook was not told" in next((tmp_path / "logs").glob("main_exp-notify_*")).read_text()


# The plan


def test_the_last_job_waits_for_all_others_however_they_end(tmp_path, here):
    plan = with_notification(training_plan(tmp_path, "step", jobs=2), here)
    last = plan.jobs[-1]
    assert {edge.kind for edge in last.edges} == {EdgeKind.ENDED}
    assert [edge.upstream for edge in last.edges] == ["sft-0", "sft-1", "convert"]
    assert last.command.secrets == ()


def test_adding_it_twice_is_adding_it_once(tmp_path, here):
    plan = training_plan(tmp_path, "step", jobs=2)
    once = with_notification(plan, here)
    assert with_notification(once, here) == once
    assert without_notification(once) == plan


def test_without_the_section_no_plan_changes(tmp_path):
    plan = training_plan(tmp_path, "step", jobs=2)
    assert with_notification(plan, local(tmp_path)) == plan


def test_nemo_run_cannot_tell_and_says_so(tmp_path, here):
    cluster = replace(here, executor=ExecutorKind.NEMO_RUN)
    with pytest.raises(ClusterConfigError, match="nemo-run cannot wait for jobs however they end"):
        with_notification(training_plan(tmp_path, "step", jobs=1), cluster)


def test_names_that_a_shell_or_json_would_read_otherwise_arrive_as_they_are(tmp_path, here, hook):
    plan = replace(plan_of(job("a", shell("true"), tmp_path)), expname="a=b+c@d-e.f")
    run(plan, here)
    assert hook.texts == ["a=b+c@d-e.f/run-1 ended well. ns status a=b+c@d-e.f"]


# The section of the configuration


def read(section):
    return load_cluster({"executor": "local", "notify": section}).notify


def test_all_occasions_are_meant_when_none_is_named():
    assert read({"webhook": "https://x/y"}) == Notify(webhook="https://x/y", on=(Occasion.END, Occasion.FAILURE))
    assert read({"webhook": "https://x/y", "on": ["failure"]}).on == (Occasion.FAILURE,)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({}, "notify.webhook is missing"),
        ({"webhook": "https://x", "onn": 1}, "notify.onn is not a key .*did you mean 'on'"),
        ({"webhook": "https://x", "on": ["never"]}, "'never' is not one of end, failure"),
        ({"webhook": {"HOOK": None}}, 'write the variable in quotes, "{NAME}"'),
        ("https://x", "notify must be a mapping"),
    ],
)
def test_mistakes_are_told(section, message):
    with pytest.raises(ClusterConfigError, match=message):
        read(section)


def test_the_variable_is_looked_up_when_a_run_is_submitted_and_not_before(tmp_path, monkeypatch):
    monkeypatch.delenv("HOOK", raising=False)
    notify = read({"webhook": "{HOOK}"})
    with pytest.raises(ClusterConfigError, match=r"HOOK is not set .*export HOOK"):
        notify.url()
    monkeypatch.setenv("HOOK", "https://x/y")
    assert notify.url() == "https://x/y"
    monkeypatch.setenv("HOOK", "no address")
    with pytest.raises(ClusterConfigError, match="it is no address"):
        notify.url()
