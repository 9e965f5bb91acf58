"""Examine training data: what is wrong with it, and what it will cost.

::

    python -m skills_pipe.training.data.doctor rows.jsonl --hf_model=/models/base --validation_data=val.jsonl

It ends with 0, with 1 where a finding is an error, or with 2 for a mistake of the user's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from skills_pipe.artifacts.broken_pipe import until_reader_leaves
from skills_pipe.training.importing import importing


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the arguments say; returns the exit status."""
    with importing():
        from skills_pipe.training.data.doctor import program
    return program.main(argv)


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
