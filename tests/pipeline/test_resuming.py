"""A recorded plan with longer or shorter chains."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skills_pipe.pipeline.plan import Edge, EdgeKind, Plan, Stage, chain, gate
from skills_pipe.pipeline.resuming import with_segments
from tests.pipeline.programs import job, make, plan_of, shell, training_plan


@pytest.mark.parametrize("before", [1, 2, 4])
@pytest.mark.parametrize("after", [1, 3])
def test_a_chain_of_any_length_becomes_the_plan_that_would_have_been_made_with_it(tmp_path, before, after):
    assert with_segments(training_plan(tmp_path, "step", jobs=before), after) == training_plan(
        tmp_path, "step", jobs=after
    )


def test_the_edges_of_the_first_segment_are_repeated_by_all(tmp_path):
    data = job("data", shell("true"), tmp_path)
    train = replace(job("sft", shell("true"), tmp_path), edges=(Edge(upstream="data"),))
    plan = Plan(
        expname="exp",
        command="test",
        stages=(Stage(name="data", output=None), Stage(name="sft", output=None)),
        jobs=(data, *chain(train, count=1)),
    )
    longer = with_segments(plan, 3)
    assert [job.name for job in longer.jobs] == ["data", "sft-0", "sft-1", "sft-2"]
    assert all(Edge(upstream="data") in job.edges for job in longer.jobs[1:])


def test_a_chain_that_requeues_itself_stays_one_job(tmp_path):
    plan = training_plan(tmp_path, "step", jobs=1)
    segments = chain(replace(plan.jobs[0], name="sft", segment=None), count=2, requeue=True)
    plan = replace(plan, jobs=(*segments, replace(plan.jobs[1], edges=gate(segments))))
    longer = with_segments(plan, 5)
    assert [job.name for job in longer.jobs] == ["sft-0", "convert"]
    assert (longer.jobs[0].segment.count, longer.jobs[0].segment.requeue) == (5, True)


def test_other_plans_are_left_as_they_are(tmp_path):
    plan = plan_of(job("a", make(tmp_path / "a"), tmp_path), job("b", shell("true"), tmp_path, "a"))
    assert with_segments(plan, 3) == plan


def test_the_gate_waits_for_every_segment_by_one_or(tmp_path):
    longer = with_segments(training_plan(tmp_path, "step", jobs=1), 3)
    convert = longer.job("convert")
    assert {edge.kind for edge in convert.edges} == {EdgeKind.ANY_SUCCEEDED}
    assert [edge.upstream for edge in convert.edges] == ["sft-0", "sft-1", "sft-2"]
