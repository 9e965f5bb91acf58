"""Which checkpoint of a run is the best, by the metric that its configuration ranks them by."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import yaml

from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.artifacts.names import CHECKPOINTS, step_directory
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.layout import StepFolder, whole_steps
from skills_pipe.training.checkpoint.retention import Retention


def best_step(whole: Mapping[int, tuple[Path, Manifest]]) -> int:
    """The best of the steps that were saved, as the configuration of the last one compares them.

    Raises:
        CheckpointError: it names no metric, or none of them has it.
    """
    metric, higher_is_better = _ranking(whole[max(whole)][0])
    if metric is None:
        raise CheckpointError(
            "the run ranks its checkpoints by no metric",
            where="checkpointing.metric_name",
            fix="name a step, or use --step=last",
        )
    metrics = {step: manifest.facts["metrics"] for step, (_, manifest) in whole.items()}
    if not any(metric in values for values in metrics.values()):
        raise CheckpointError(
            f"no checkpoint has the metric {metric!r}", where="checkpointing.metric_name", fix="use --step=last"
        )
    return Retention(metric_name=metric, higher_is_better=higher_is_better).ranked(metrics)[0]


def better_than_last(folder: Path) -> str | None:
    """A sentence about the best checkpoint of a run, and how a model of it is made; None where it is the last one.

    Args:
        folder: ``checkpointing.checkpoint_dir``.
    """
    try:
        whole = {step: (path, manifest) for step, path, manifest in whole_steps(folder)}
        best = best_step(whole) if whole else None
        metric = _ranking(whole[max(whole)][0])[0] if whole else None
    # Nothing says which is the best, or it cannot be read: a training that is complete stays so.
    except (CheckpointError, OSError, yaml.YAMLError):
        return None
    if best is None or best == max(whole):
        return None
    training = folder.parent if folder.name == CHECKPOINTS else folder
    return (
        f"the best checkpoint by {metric} is {step_directory(best)}, not the last one; "
        f"a model of it, with the same --cluster: ns convert --input_model={shlex.quote(str(training))} "
        "--output_model=FOLDER --conversion_step=best"
    )


def _ranking(step: Path) -> tuple[str | None, bool]:
    """The metric, and whether more of it is better."""
    section = yaml.safe_load(StepFolder(step).config.read_text(encoding="utf-8")).get("checkpointing") or {}
    return section.get("metric_name"), bool(section.get("higher_is_better", False))
