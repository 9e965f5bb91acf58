"""Which job may start: as Slurm keeps the same edges, and never a deadlock."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.pipeline.executors.schedule import READY, WAIT, Never, outlook, reduced
from skills_pipe.pipeline.plan import Edge, EdgeKind, Job, Plan
from skills_pipe.pipeline.records.states import JobState, JobStatus, stage_state
from tests.pipeline.programs import job, plan_of, shell, training_plan

S = JobState


def waiting(*edges: tuple[str, EdgeKind]) -> Job:
    from dataclasses import replace

    plain = job("x", shell("true"), Path("/tmp"))
    return replace(plain, edges=tuple(Edge(upstream=upstream, kind=kind) for upstream, kind in edges))


def test_a_stage_starts_after_success_only():
    after = waiting(("a", EdgeKind.SUCCEEDED))
    answers = {state: outlook(after, {"a": state}) for state in S}
    assert answers[S.SUCCEEDED] == READY
    assert answers[S.PENDING] == answers[S.RUNNING] == WAIT
    for state in (S.FAILED, S.CANCELLED, S.CONTINUED, S.LOST, S.NOT_NEEDED):
        assert answers[state].state is S.CANCELLED


def test_what_only_tells_of_an_end_starts_after_any_end():
    last = waiting(("a", EdgeKind.ENDED), ("b", EdgeKind.ENDED))
    for state in S:
        answer = outlook(last, {"a": state, "b": S.FAILED})
        assert answer == (READY if state.ended else WAIT)


def test_a_segment_starts_when_the_work_is_not_done():
    segment = waiting(("s0", EdgeKind.UNFINISHED))
    answers = {state: outlook(segment, {"s0": state}) for state in S}
    assert answers[S.FAILED] == answers[S.CONTINUED] == READY
    assert answers[S.PENDING] == answers[S.RUNNING] == WAIT
    assert answers[S.SUCCEEDED].state is answers[S.NOT_NEEDED].state is S.NOT_NEEDED
    assert answers[S.CANCELLED].state is S.CANCELLED, "on Slurm scancel would start it: the other edges prevent that"


def test_a_gate_needs_one_of_its_chain():
    gate = waiting(("s0", EdgeKind.ANY_SUCCEEDED), ("s1", EdgeKind.ANY_SUCCEEDED))
    assert outlook(gate, {"s0": S.SUCCEEDED, "s1": S.NOT_NEEDED}) == READY
    assert outlook(gate, {"s0": S.SUCCEEDED, "s1": S.PENDING}) == READY
    assert outlook(gate, {"s0": S.CONTINUED, "s1": S.PENDING}) == WAIT
    assert isinstance(outlook(gate, {"s0": S.CONTINUED, "s1": S.CONTINUED}), Never)


def test_what_was_finished_before_is_not_waited_for():
    assert outlook(waiting(("a", EdgeKind.SUCCEEDED)), {}) == READY


def test_a_cancelled_upstream_outweighs_finished_work():
    both = waiting(("s0", EdgeKind.UNFINISHED), ("data", EdgeKind.SUCCEEDED))
    assert outlook(both, {"s0": S.SUCCEEDED, "data": S.FAILED}).state is S.CANCELLED


def test_a_reduced_plan_has_the_edges_among_what_is_left():
    plan = training_plan(Path("/tmp/x"), "step", jobs=2)
    left = reduced(plan, {"convert"})
    assert [job.name for job in left.jobs] == ["convert"] and left.jobs[0].edges == ()
    assert reduced(plan, {"sft", "convert"}) == plan


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    jobs = []
    for index in range(draw(st.integers(1, 6))):
        before = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        jobs.append(job(f"j{index}", shell("true"), Path("/tmp"), *(f"j{number}" for number in sorted(before))))
    return plan_of(*jobs)


@given(plans(), st.data())
def test_every_plan_comes_to_an_end_whatever_its_jobs_do(plan, data):
    states = {job.name: S.PENDING for job in plan.jobs}
    for _ in range(len(plan.jobs)):
        answers = {job.name: outlook(job, states) for job in plan.jobs if states[job.name] is S.PENDING}
        movable = {name: answer for name, answer in answers.items() if answer != WAIT}
        if not answers:
            break
        assert movable, "every job waits for another one"
        for name, answer in movable.items():
            ends = st.sampled_from([S.SUCCEEDED, S.FAILED, S.CANCELLED])
            states[name] = answer.state if isinstance(answer, Never) else data.draw(ends)
    assert all(state.ended for state in states.values())
    for job_ in plan.jobs:
        bad = any(states[edge.upstream] is not S.SUCCEEDED for edge in job_.edges)
        assert not bad or states[job_.name] is S.CANCELLED, "nothing runs on what failed"


def chain_state(*states: JobState) -> JobState | None:
    plan = training_plan(Path("/tmp/x"), "step", jobs=len(states))
    statuses = {
        f"sft-{index}": JobStatus(job=f"sft-{index}", stage="sft", state=state) for index, state in enumerate(states)
    }
    return stage_state(plan, "sft", statuses)


def test_a_chain_is_as_good_as_its_best_segment():
    assert chain_state(S.FAILED, S.SUCCEEDED, S.NOT_NEEDED) is S.SUCCEEDED
    assert chain_state(S.CONTINUED, S.RUNNING, S.PENDING) is S.RUNNING
    assert chain_state(S.FAILED, S.PENDING) is S.PENDING
    assert chain_state(S.FAILED, S.CANCELLED) is S.FAILED
    assert chain_state(S.CONTINUED, S.CONTINUED) is S.CONTINUED
    assert chain_state() is None
