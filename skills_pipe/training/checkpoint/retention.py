"""Which checkpoints of a run stay on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from skills_pipe.artifacts.names import step_directory
from skills_pipe.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Retention:
    """Rule for keeping checkpoints: the union of the latest, the best, the most recent ones and those that are named.

    Attributes:
        metric_name: ``val:...`` or ``train:...``; None ranks by recency.
        higher_is_better: how the metric is compared.
        keep_top_k: how many of the best to keep; None keeps all that compete.
        keep_latest_k: how many of the most recent to keep besides the best ones.
        save_period: only steps that are a multiple of it compete for ``keep_top_k``; None lets all compete.
        keep_steps: steps that stay because they are needed later; they take no place of the best ones.
    """

    metric_name: str | None = None
    higher_is_better: bool = False
    keep_top_k: int | None = None
    keep_latest_k: int | None = None
    save_period: int | None = None
    keep_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.metric_name is not None and not self.metric_name.startswith(("train:", "val:")):
            raise ConfigError(
                f"metric_name {self.metric_name!r} does not say whose metric it is",
                where="checkpointing.metric_name",
                fix=f"write 'val:{self.metric_name}' or 'train:{self.metric_name}'",
            )
        for key, value in (("keep_top_k", self.keep_top_k), ("ft_keep_latest_k", self.keep_latest_k)):
            if value is not None and value < 0:
                raise ConfigError(f"{key} is {value}", where=f"checkpointing.{key}", fix="set it to 0 or more, or null")

    def obsolete(self, steps: Mapping[int, Mapping[str, float]]) -> list[int]:
        """The steps to delete, ascending, given every saved step with its metrics.

        The latest step always stays. Among equals the later step is the better one; a step without the metric, or
        with a value that is not a number, is worse than all others.
        """
        recent = sorted(steps)
        kept = {*recent[-1:], *self.keep_steps}
        kept.update(self.ranked(steps)[: self.keep_top_k])
        # Steps saved off the period (when the time ran out) do not compete, so only recency can keep them.
        kept.update(recent[max(0, len(recent) - (self.keep_latest_k or 0)) :])
        return [step for step in recent if step not in kept]

    def ranked(self, steps: Mapping[int, Mapping[str, float]]) -> list[int]:
        """The steps that compete for ``keep_top_k``, the best one first."""
        period = self.save_period or 1
        competing = [step for step in steps if step % period == 0]
        return sorted(competing, key=lambda step: (self._score(steps[step]), step), reverse=True)

    def _score(self, metrics: Mapping[str, float]) -> float:
        if self.metric_name is None:
            return 0.0
        value = metrics.get(self.metric_name, math.nan)
        if math.isnan(value):
            return -math.inf
        return value if self.higher_is_better else -value


def names(steps: Sequence[int]) -> str:
    """Steps as a list for a message: ``step_10, step_20``."""
    return ", ".join(step_directory(step) for step in steps) or "none"
