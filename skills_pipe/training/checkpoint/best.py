"""Which checkpoint of a run is the best, by the metric that its configuration ranks them by."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.artifacts.names import CHECKPOINTS, step_directory
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.comparable import comparable_metrics
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
            fix="name a step, or take the last one",
        )
    metrics = comparable_metrics({step: manifest for step, (_, manifest) in whole.items()})
    if not any(metric in values for values in metrics.values()):
        raise CheckpointError(
            f"no checkpoint has the metric {metric!r}",
            where="checkpointing.metric_name",
            fix="name a step, or take the last one",
        )
    return Retention(metric_name=metric, higher_is_better=higher_is_better).ranked(metrics)[0]


def better_than_last(folder: Path) -> str | None:
    """What who watched for the best should know of the saved checkpoints; None where the last one is it.

    Args:
        folder: ``checkpointing.checkpoint_dir``.
    """
    try:
        whole = {step: (path, manifest) for step, path, manifest in whole_steps(folder)}
        found = [*_not_saved(whole), *_best_of_saved(whole, folder)] if whole else []
    # Nothing says which is the best, or it cannot be read: a training that is complete stays so.
    except (CheckpointError, OSError, ValueError, yaml.YAMLError):
        return None
    return "; ".join(found) or None


def _not_saved(whole: Mapping[int, tuple[Path, Manifest]]) -> Iterator[str]:
    """Early stopping may have seen the best at a step that was not to be saved, or was given up for later ones."""
    last = StepFolder(whole[max(whole)][0])
    watched = json.loads(last.info.read_text(encoding="utf-8")).get("watches", {}).get("early_stopping", {})
    seen = watched.get("lowest_step", watched.get("best_step", 0))
    if seen and seen not in whole:
        advice = _how_to_keep(last, watched.get("metric"))
        yield (
            f"there is no checkpoint of {step_directory(seen)}, where early stopping saw the best"
            f"{f': set {advice} the next time, and it will be kept' if advice else ''}"
        )


def _how_to_keep(last: StepFolder, watched: str | None) -> str:
    """Overrides by which each step that is validated is saved, and ranked as early stopping does."""
    config = yaml.safe_load(last.config.read_text(encoding="utf-8"))
    validated = (config.get("sft") or {}).get("val_period") or 0
    saved = (config.get("checkpointing") or {}).get("save_period") or 0
    metric, _ = _ranking(last.path)
    advice = [f"checkpointing.save_period={validated}"] if validated and (not saved or validated % saved) else []
    advice += [f"checkpointing.metric_name={watched}"] if watched and watched != metric else []
    return " and ".join(advice)


def _best_of_saved(whole: Mapping[int, tuple[Path, Manifest]], folder: Path) -> Iterator[str]:
    """Which it is, and how a model of it is made."""
    best = best_step(whole)
    if best == max(whole):
        return
    metric, _ = _ranking(whole[max(whole)][0])
    training = folder.parent if folder.name == CHECKPOINTS else folder
    yield f"the best checkpoint by {metric} is {step_directory(best)}, not the last one"
    yield (
        f"a model of it, with the same --cluster: ns convert --input_model={shlex.quote(str(training))} "
        "--output_model=FOLDER --conversion_step=best"
    )


def _ranking(step: Path) -> tuple[str | None, bool]:
    """The metric, and whether more of it is better."""
    section = yaml.safe_load(StepFolder(step).config.read_text(encoding="utf-8")).get("checkpointing") or {}
    return section.get("metric_name"), bool(section.get("higher_is_better", False))
