"""A configuration -> the rows that a training run would read, and how it would make documents of them."""

from __future__ import annotations

from dataclasses import dataclass

from skills_pipe.training.config import TrainingConfig
from skills_pipe.training.data.chunk import Recipe
from skills_pipe.training.data.from_config import data_settings, template_of
from skills_pipe.training.data.inspection.selection import Selection, select
from skills_pipe.training.data.notes import reading_notes, reading_warnings
from skills_pipe.training.data.sources.configured import RunSources, find_sources
from skills_pipe.training.data.tokenizer import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class OpenedData:
    """The data of a run, before anything is made of it.

    Attributes:
        recipe: tokenizer, template and settings.
        train: rows of all training datasets.
        validation: rows of all validation datasets, None without.
        weight: times that an epoch has a training row, on average over the datasets.
        notes: what is unusual about how the rows are read, as sentences.
        warnings: what of that is most likely a mistake.
    """

    recipe: Recipe
    train: Selection
    validation: Selection | None
    weight: float = 1.0
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def open_data(config: TrainingConfig, max_rows: int) -> OpenedData:
    """Find rows, tokenizer and template as :func:`from_config.load_data` does.

    Args:
        config: of the run.
        max_rows: rows to choose of each use; 0: all.

    Raises:
        ConfigError: a key, or a file that one names, cannot be used.
        DataError: the rows cannot be found, or they don't settle the template.
    """
    names = config.policy.tokenizer
    tokenizer = load_tokenizer(names.name or config.policy.model_name)
    sources = find_sources(config.data)
    template = template_of(names, tokenizer, sources.all_train)
    held_out = [source for files in sources.validation.values() for source in files]
    return OpenedData(
        recipe=Recipe(tokenizer=tokenizer, template=template, settings=data_settings(config)),
        train=select(sources.all_train, max_rows),
        validation=select(held_out, max_rows) if held_out else None,
        weight=_average_weight(config, sources),
        notes=reading_notes(config.data),
        warnings=reading_warnings(config.data, sources),
    )


def _average_weight(config: TrainingConfig, sources: RunSources) -> float:
    weights = [dataset.weight for dataset in config.data.train]
    if all(weight == weights[0] for weight in weights):
        return weights[0]
    rows = [sum(len(source.open()) for source in files) for files in sources.train]
    return sum(weight * count for weight, count in zip(weights, rows, strict=True)) / max(sum(rows), 1)
