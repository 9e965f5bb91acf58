"""What is unusual about how rows are read: accepted, and worth a sentence before training, or a warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from skills_pipe.training.config.schema.data import DataConfig, DatasetConfig
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.sources.configured import RunSources


def reading_notes(data: DataConfig) -> tuple[str, ...]:
    """Sentences about the training datasets of a configuration."""
    return tuple(note for dataset in data.train for note in _unified(dataset))


def reading_warnings(data: DataConfig, sources: RunSources) -> tuple[str, ...]:
    """What is most likely a mistake; ``sources`` are the files of the datasets."""
    pairs = zip(data.train, sources.train, strict=True)
    return tuple(warning for dataset, files in pairs for warning in _unused(dataset, files))


def _unified(dataset: DatasetConfig) -> Iterator[str]:
    if not dataset.use_preserving_dataset:
        yield (
            f"data.use_preserving_dataset is false: in messages and tools of {dataset.name}, keys that only other rows "
            "have are None, as Arrow makes them; set it to true to train on the rows as they are"
        )


def _unused(dataset: DatasetConfig, files: tuple[DataSource, ...]) -> Iterator[str]:
    """Rows of Alpaca look like rows of an input and an output, and lose their question when they are read so."""
    if dataset.dataset_name != "ResponseDataset" or "instruction" in (dataset.input_key, dataset.output_key):
        return
    _, first = next((row for source in files for row in source.open().read(0, 1)), ("", None))
    if isinstance(first, Mapping) and "instruction" in first and dataset.chat_key not in first:
        yield (
            f"rows of {dataset.name} have an 'instruction', which is not trained on: "
            "data.dataset_name=alpaca puts it before their input"
        )
