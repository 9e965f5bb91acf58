"""Every error that a user can see; each says what is wrong, where it was set and what to do.

    UserError                 one line on the terminal, exit code 2, no traceback
    ├── OptionError           an option of a command, or a keyword of its Python function
    ├── ConfigError           a key or value of the training configuration
    ├── ClusterConfigError    a key or value of a cluster configuration
    ├── DataError             a row or file of training or evaluation data
    ├── CheckpointError       a checkpoint that is missing, damaged or of another run
    ├── PlanError             stages, edges or resources that cannot work together
    └── StoreError            an experiment that is unknown, or busy in another process
    JobFailed                 a job ended badly; names its log, exit code 1

Anything else that is raised is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend.

    Args:
        what: what is wrong, as a sentence without a full stop.
        where: where it was set: a flag, a file with its key or line, an environment variable.
        fix: what to do about it, as an imperative without a full stop.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f": {self.fix}" if self.fix else ""
        return f"{self.what}{place}{advice}"


class OptionError(UserError):
    """An option of a command, or a keyword of its Python function."""


class ConfigError(UserError):
    """A key or value of the training configuration."""


class ClusterConfigError(UserError):
    """A key or value of a cluster configuration."""


class DataError(UserError):
    """A row or file of training or evaluation data."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or of another run."""


class PlanError(UserError):
    """Stages, edges or resources that cannot work together."""


class StoreError(UserError):
    """An experiment that is unknown, or busy in another process."""


class JobFailed(Exception):
    """A job of a plan ended badly; the message names the job and its log."""

    exit_code = 1


def first_line(error: BaseException) -> str:
    """What an error of a library says first, to be quoted in one of ours."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(word: str, choices: Iterable[str]) -> str | None:
    """Advice naming the closest choice to a misspelt ``word``, or None when nothing is near.

    Dotted keys are compared by their last part too, so that a right key under a wrong section is found.
    """
    # The section of a wrong key is no key: "policy" is no advice for "policy.foo".
    known = [choice for choice in choices if not word.startswith(f"{choice}.")]
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not close:
        leaf = word.rsplit(".", 1)[-1]
        close = [choice for choice in known if choice.rsplit(".", 1)[-1] == leaf][:1]
    return f"did you mean {close[0]!r}?" if close else None
