"""Show what is trained of some rows, token by token.

::

    python -m skills_pipe.training.data.preview rows.jsonl --hf_model=/models/base --html=rows.html ++key=value

It ends with 0, or with 2 for a mistake of the user's. Rows that training refuses are shown with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from skills_pipe.artifacts.broken_pipe import until_reader_leaves
from skills_pipe.training.importing import importing


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the arguments say; returns the exit status."""
    with importing():
        from skills_pipe.training.data.preview import program
    return program.main(argv)


if __name__ == "__main__":
    sys.exit(until_reader_leaves(main))
