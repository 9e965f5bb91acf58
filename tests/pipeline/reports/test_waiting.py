"""Why a job waits, in words."""

import pytest

from skills_pipe.pipeline.reports.waiting import HELD, NEVER, waiting_words


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("Priority", "its turn has not come: jobs of a higher priority wait too"),
        ("Resources", "first in line, waits for free nodes"),
        ("(Resources)", "first in line, waits for free nodes"),
        ("QOSMaxJobsPerUserLimit", "the limit on running jobs of its quality of service is reached"),
        ("QOSMaxSubmitJobPerUserLimit", "the limit on submitted jobs of its quality of service is reached"),
        ("QOSGrpNodeLimit", "the limit on nodes of everybody in its quality of service is reached"),
        ("QOSMaxGRESPerUser", "the limit on GPUs of its quality of service is reached"),
        ("AssocGrpCPUMinutesLimit", "the limit on CPUs of everybody in its account is reached"),
        ("AssocMaxWallDurationPerJobLimit", "the limit on running time of its account is reached"),
        ("ReqNodeNotAvail, UnavailableNodes:node1", "a node that it needs is down, drained or reserved"),
        ("SomethingNew", "Slurm says SomethingNew"),
        ("None", ""),
        ("", ""),
    ],
)
def test_a_reason_of_slurm_is_told_in_words(reason, words):
    assert waiting_words(reason).partition(" (")[0] == words


@pytest.mark.parametrize(("reason", "begin"), [("JobHeldUser", HELD), ("DependencyNeverSatisfied", NEVER)])
def test_what_somebody_has_to_see_to_begins_with_a_word_that_says_so(reason, begin):
    assert waiting_words(reason).startswith(begin)


def test_the_limit_is_named_so_that_an_administrator_knows_which():
    assert "(QOSMaxJobsPerUserLimit)" in waiting_words("QOSMaxJobsPerUserLimit")
