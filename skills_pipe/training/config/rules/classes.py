"""Classes are named by their import path: a short name of another trainer is answered with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.resolvers import UNKNOWN
from skills_pipe.training.config.schema import TrainingConfig

_OPTIMIZERS: Final = {
    name.lower(): f"torch.optim.{name}"
    for name in (
        *("Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "Muon", "NAdam"),
        *("RAdam", "RMSprop", "Rprop", "SGD"),
    )
}
_COSINE: Final = "{name: torch.optim.lr_scheduler.CosineAnnealingLR, kwargs: {T_max: 1000}}"
_LINEAR: Final = (
    "{name: torch.optim.lr_scheduler.LinearLR, kwargs: {start_factor: 1, end_factor: 0, total_iters: 1000}}"
)
_SCHEDULES: Final = {"cosine": _COSINE, "cosineannealinglr": _COSINE, "linear": _LINEAR, "linearlr": _LINEAR}
"""Names in small letters -> what to write, but for the number of steps."""


def broken_class_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Names of an optimizer or a schedule that nothing can be imported by."""
    optimizer, scheduler = config.policy.optimizer, config.policy.scheduler
    if optimizer is not None:
        key = "policy.optimizer.name"
        yield from _short(optimizer.name, key, key, origins, _OPTIMIZERS, "torch.optim.AdamW")
    for part in scheduler.parts if scheduler is not None else ():
        yield from _short(part.name, "policy.scheduler", "a name in policy.scheduler", origins, _SCHEDULES, _COSINE)


def _short(
    name: str, key: str, called: str, origins: Origins, meant: Mapping[str, str], other: str
) -> Iterator[ConfigError]:
    if "." in name or name == UNKNOWN:
        return
    written = meant.get(name.lower())
    fix = f"write {written}" if written else f"write one, such as {other}"
    yield ConfigError(f"{called} is the import path of a class, not {name!r}", where=origins.where(key), fix=fix)
