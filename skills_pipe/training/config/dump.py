"""A configuration as a tree and as YAML: what is stored with a checkpoint, and can be loaded again."""

from __future__ import annotations

import dataclasses
from typing import Any

from skills_pipe.training.config.schema import SchedulerConfig, TrainingConfig


def to_tree(config: TrainingConfig) -> dict[str, Any]:
    """Plain dictionary in the layout of configuration files."""
    tree = _plain(dataclasses.asdict(config))
    tree["policy"]["scheduler"] = _scheduler(config.policy.scheduler)
    return dict(tree)


def to_yaml(config: TrainingConfig) -> str:
    """YAML text that :func:`load_config` reads back to an equal configuration."""
    import yaml

    return yaml.safe_dump(to_tree(config), sort_keys=False, allow_unicode=True)


def _scheduler(scheduler: SchedulerConfig | None) -> Any:
    if scheduler is None:
        return None
    parts: list[Any] = [{"name": part.name, "kwargs": _plain(part.kwargs)} for part in scheduler.parts]
    return [*parts, {"milestones": list(scheduler.milestones)}]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
