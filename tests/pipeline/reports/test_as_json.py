"""``ns status --json``: the same facts for programs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.reports.as_json import run_as_json, run_state
from skills_pipe.pipeline.reports.report import report_of
from tests.pipeline.programs import training_plan
from tests.pipeline.reports.recorded import recorded, report_progress, statuses, warn

S = JobState
NOW = 10_000.0


@pytest.fixture
def run(tmp_path):
    return recorded(tmp_path, training_plan(tmp_path, "step", jobs=2))


def test_every_fact_is_there_under_a_plain_name(run):
    given = statuses(run, sft_0=S.RUNNING)
    given["sft-0"] = replace(
        given["sft-0"], gpus=8, started_at=NOW - 3600, nodes="node[1-2]", deadline=NOW + 60, restarts=1
    )
    report_progress(run, "sft-0", done=4, total=9, loss=1.5, tokens_per_second=5e3, checkpoint=3, eta_seconds=7.0)
    value = run_as_json(report_of(run, given, now=NOW), ("look",))
    assert (value["run"], value["state"], value["gpu_hours"], value["advice"]) == (
        "exp/run-1",
        "running",
        8.0,
        ["look"],
    )
    first = value["stages"][0]["jobs"][0]
    assert (first["name"], first["id"], first["segment"], first["elapsed"]) == ("sft-0", "100", [0, 2], 3600)
    assert (first["nodes"], first["deadline"], first["restarts"]) == ("node[1-2]", NOW + 60, 1)
    assert first["progress"]["loss"] == 1.5 and first["progress"]["checkpoint"] == 3


def test_it_is_json_even_when_the_loss_is_no_number(run):
    report_progress(run, "sft-0", done=4, loss=math.nan)
    text = json.dumps(run_as_json(report_of(run, statuses(run, sft_0=S.RUNNING), now=NOW), ()), allow_nan=False)
    assert json.loads(text)["stages"][0]["jobs"][0]["progress"]["loss"] is None


def test_a_stage_has_what_its_jobs_warn_of_each_sentence_once(run):
    warn(run, "sft-0", "no answer ends", "too long")
    warn(run, "sft-1", "too long", "and more")
    value = run_as_json(report_of(run, statuses(run, sft_0=S.CONTINUED, sft_1=S.RUNNING), now=NOW), ())
    assert [stage["warnings"] for stage in value["stages"]] == [["no answer ends", "too long", "and more"], []]


@pytest.mark.parametrize(
    ("states", "word"),
    [
        ({"sft_0": S.RUNNING}, "running"),
        ({}, "pending"),
        ({"sft_0": S.CONTINUED}, "pending"),
        ({"sft_0": S.SUCCEEDED, "sft_1": S.NOT_NEEDED, "convert": S.SUCCEEDED}, "succeeded"),
        ({"sft_0": S.SUCCEEDED, "sft_1": S.NOT_NEEDED, "convert": S.FAILED}, "failed"),
        ({"sft_0": S.CANCELLED, "sft_1": S.CANCELLED, "convert": S.CANCELLED}, "failed"),
    ],
)
def test_one_word_for_the_whole_run(run, states, word):
    assert run_state(report_of(run, statuses(run, **states), now=NOW)) == word
