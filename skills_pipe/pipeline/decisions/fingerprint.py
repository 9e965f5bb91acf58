"""What an input of a stage is, in a few characters: equal fingerprints mean that nothing needs to be done again.

=====================  ========================================================
``stage:<digest>``     made by a stage: identity in its manifest, or in that of
                       the nearest folder above
``content:<digest>``   sealed by hand: hash of the contents
``file:<size>:<ns>``   any other file: bytes and time of the last change
``folder:<digest>``    any other folder: names, bytes and times of its files
``files:<digest>``     all that a glob pattern matches
``hub:<id>``           a model or data set of the Hugging Face hub, where that
                       is not a folder
=====================  ========================================================

They are taken where the files are: ``site.agent.looking``.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from skills_pipe.errors import PlanError
from skills_pipe.pipeline.site.site import HERE, Want

AN_INPUT = "its input"
"""Where a missing input was named, when nobody knows better."""

A_FOLDER = "folder:"
"""Begins the fingerprint of a folder that nobody has sealed."""

HUB_DATASET = "hf://datasets/"
"""Before the id of a data set on the hub that is an input; the id of a model stands alone."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def fingerprint(path: Path) -> str | None:
    """Fingerprint of a file or folder of this machine, None when there is nothing."""
    return HERE.facts({str(path): [Want.FINGERPRINT]})[str(path)].fingerprint


def is_hub_id(name: str) -> bool:
    """Whether an input may be the id of a model on the Hugging Face hub, ``org/name``, or is that of a data set."""
    return _HUB_ID.fullmatch(name.removeprefix(HUB_DATASET)) is not None


def missing_input(path: str, stage: str) -> PlanError:
    """The error for an input that is neither on disk nor promised by a run before."""
    return PlanError(
        f"stage {stage!r} reads {path}, which does not exist",
        where=AN_INPUT,
        fix="correct the path, or name the experiment that makes it with --run_after",
    )


def covers(output: str, path: str) -> bool:
    """Whether ``path`` is ``output`` or lies below it."""
    return PurePath(path).is_relative_to(PurePath(output))
