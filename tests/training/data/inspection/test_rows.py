"""What becomes of one row."""

import numpy as np

from skills_pipe.training.data.chunk import TOO_LONG
from skills_pipe.training.data.inspection.rows import RowInspector
from skills_pipe.training.data.rows import BadRow, Conversation
from tests.training.data.looking import chat, recipe


def row(*contents):
    return Conversation(messages=chat(*contents)["messages"], tools=None, form="chat", where="a:1")


def test_a_row_within_the_limit_is_the_same_with_and_without_it():
    inspected = RowInspector(recipe()).inspect(row("q", "a"))
    (trained,), (unlimited,) = inspected.documents, inspected.unlimited
    assert np.array_equal(trained.input_ids, unlimited.input_ids)
    assert np.array_equal(trained.loss_mask, unlimited.loss_mask)
    assert inspected.counts["turns"] == 1


def test_a_row_above_the_limit_is_known_in_full():
    long, short = row("x" * 100, "a"), {"max_length": 60}
    for policy in ("drop", "error"):
        inspected = RowInspector(recipe(**short, overlong=policy)).inspect(long)
        assert (inspected.documents, dict(inspected.dropped)) == ((), {TOO_LONG: 1})
        assert len(inspected.unlimited[0].input_ids) > 100
    inspected = RowInspector(recipe(**short, overlong="truncate")).inspect(long)
    assert len(inspected.documents[0].input_ids) == 60
    assert np.array_equal(inspected.documents[0].input_ids[-3:], inspected.unlimited[0].input_ids[-3:])


def test_a_fault_is_told_and_not_raised():
    fault = BadRow(where="a:2", what="no messages")
    inspected = RowInspector(recipe(on_bad_row="error")).inspect(fault)
    assert (inspected.fault, inspected.documents, inspected.where) == (fault, (), "a:2")
