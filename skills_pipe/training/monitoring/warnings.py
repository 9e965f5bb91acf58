"""What will most likely spoil the model, told before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.from_config import TrainingData, data_settings
from skills_pipe.training.data.lost import lost_to_length
from skills_pipe.training.models.positions import beyond_positions, trained_positions
from skills_pipe.training.monitoring.rates import doubtful_rates
from skills_pipe.training.run import Run


def warnings_of(run: Run, data: TrainingData) -> tuple[str, ...]:
    """Sentences, each once."""
    named = _named(data)
    found = [*data.train.report.warnings(), *data.warnings, *_left_out(run, named), *_too_long(run, named)]
    return tuple(dict.fromkeys([*found, *_rates(run)]))


def _named(data: TrainingData) -> dict[str, SftDataset]:
    """What a sentence about a data set begins with -> that data set."""
    return {"": data.train, **{f"validation data {name}: ": dataset for name, dataset in data.validation.items()}}


def _left_out(run: Run, named: Mapping[str, SftDataset]) -> Iterator[str]:
    """Documents beyond the limit of the configuration."""
    limit = data_settings(run.config).max_length
    for which, dataset in named.items():
        sentence = lost_to_length(dataset.report, limit)
        if sentence is not None:
            yield f"{which}{sentence}"


def _too_long(run: Run, named: Mapping[str, SftDataset]) -> Iterator[str]:
    """Documents for which the model has no positions."""
    positions = trained_positions(run.backend.trainee.model.config)
    for which, dataset in named.items():
        found = beyond_positions(dataset.lengths, positions)
        if found is not None:
            what, fix = found
            yield f"{which}{what}: {fix}"


def _rates(run: Run) -> Iterator[str]:
    """Schedules that are a mistake more often than not."""
    if run.rehearsal is not None:
        yield from doubtful_rates(run.rehearsal, run.config.policy.scheduler, total_steps=run.total_steps)
