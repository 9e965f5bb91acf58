"""Jobs that are more important take the nodes: the same job goes on later, and no segment is used up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.plan import Plan, Resources
from skills_pipe.pipeline.submit import submit
from tests.pipeline.chaos.scenes import ask, begun, ended, starts, words
from tests.pipeline.programs import training_plan

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

EVERYTHING = ("sbatch", "--parsable", "--partition=high", "--nodes=4", "--exclusive", "--output=/dev/null")


def on_low(plan: Plan) -> Plan:
    """The segments in the partition whose jobs may be preempted."""
    jobs = [replace(job, resources=Resources(partition="low")) if job.segment else job for job in plan.jobs]
    return replace(plan, jobs=tuple(jobs))


@pytest.mark.parametrize("mood", ["save-on-term", "wait-for-save"])
def test_preemption_requeues_the_same_job(cluster, tmp_path, mood):
    """Whether it saves and ends within the time of grace, which Slurm takes for a failure, or waits to be killed."""
    submission = submit(on_low(training_plan(tmp_path, mood, "finish", jobs=2)), cluster)
    begun(tmp_path, 1)
    ask(*EVERYTHING, "--wrap=true")
    assert words(ended(submission)) == ["succeeded", "not needed", "succeeded"]
    assert starts(tmp_path) == 2
    assert statuses_of(submission.run)["sft-0"].restarts == 1
