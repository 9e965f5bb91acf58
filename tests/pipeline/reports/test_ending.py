"""How a job ended, in words."""

import pytest

from skills_pipe.pipeline.records.states import JobState, JobStatus
from skills_pipe.pipeline.reports.ending import NEVER_STARTED, NOT_BY_US, ending_words

S = JobState


def words(state, reason, *, code=None, started=1.0, before_failed=False):
    status = JobStatus(job="a", stage="a", state=state, reason=reason, exit_code=code, started_at=started)
    return ending_words(status, before_failed=before_failed)


@pytest.mark.parametrize(
    ("state", "reason", "code", "told"),
    [
        (S.FAILED, "NonZeroExitCode", 3, "exit code 3"),
        (S.FAILED, "", 3, "exit code 3"),
        (S.FAILED, "", None, "it ended badly"),
        (S.FAILED, "timeout", 0, "its time limit was reached"),
        (S.FAILED, "node fail", 0, "a node failed"),
        (S.FAILED, "out of memory", 137, "it needed more memory than it had"),
        (S.FAILED, "RaisedSignal:9(Killed)", 0, "killed by signal 9"),
        (S.FAILED, "server died with exit code 137", 1, "server died with exit code 137"),
        (S.CANCELLED, "cancelled by `ns cancel`", None, "cancelled by `ns cancel`"),
        (S.CANCELLED, "", None, NOT_BY_US),
        (S.CANCELLED, "DependencyNeverSatisfied", None, NEVER_STARTED),
        (S.CONTINUED, "the time is up", 75, "the time is up"),
        (S.SUCCEEDED, "", 0, ""),
    ],
)
def test_each_end_is_told_in_words(state, reason, code, told):
    assert words(state, reason, code=code) == told


def test_what_never_started_after_a_failure_was_not_cancelled_by_a_person():
    assert words(S.CANCELLED, "", started=None, before_failed=True) == NEVER_STARTED
    assert words(S.CANCELLED, "", started=None, before_failed=False) == NOT_BY_US
