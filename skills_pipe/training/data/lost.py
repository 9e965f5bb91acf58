"""Documents that are left out for their length: how many are too many."""

from __future__ import annotations

from typing import Final

from skills_pipe.training.data.build import BAD_ROW
from skills_pipe.training.data.chunk import TOO_LONG
from skills_pipe.training.data.report import DataReport

MANY_LOST: Final = 0.01
"""Share of the documents from which on their loss is worth a warning."""


def lost_to_length(report: DataReport, limit: int) -> str | None:
    """What is lost of a data set and what to do, when it is more than :data:`MANY_LOST` of its documents; else None.

    Args:
        report: of the data set.
        limit: most tokens of a document.
    """
    count = report.dropped.get(TOO_LONG, 0)
    # Not report.documents: an epoch of a mixture has some more than once.
    made = report.rows_read - report.dropped.get(BAD_ROW, 0) + report.split_documents
    if count <= MANY_LOST * made:
        return None
    are = "is" if count == 1 else "are"
    return (
        f"{count:,} of {made:,} documents ({count / made:.1%}) {are} longer than the limit of {limit:,} tokens and "
        "left out: raise ++policy.max_total_sequence_length (and data.max_input_seq_length, where it is set), or "
        "shorten them with ++data.overlong=truncate; `ns data doctor` tells which limit keeps how many"
    )
