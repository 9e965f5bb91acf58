"""What a training job reads, as its keys say it: models, rows, and the texts that are put around them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.data_names import as_input
from skills_pipe.pipeline.commands.sft.keys import Keys, read_keys
from skills_pipe.pipeline.options.overrides import path_of

if TYPE_CHECKING:
    from skills_pipe.training.config import TrainingConfig


def inputs_of(keys: Keys, cluster: ClusterConfig) -> tuple[str, ...]:
    """The inputs of the training stage, each once; a folder or file as jobs see it, or what it is called on the hub."""
    config, _ = read_keys(keys)
    found = _as_written(keys, cluster) if config is None else _as_configured(config, cluster)
    return tuple(dict.fromkeys(found))


def _as_configured(config: TrainingConfig, cluster: ClusterConfig) -> Iterator[str]:
    models = (config.policy.model_name, config.policy.tokenizer.name)
    yield from (cluster.absolute_or_id(name) for name in models if name)
    datasets = (*config.data.train, *config.data.validation)
    yield from (as_input(dataset.data_path, cluster) for dataset in datasets if dataset.data_path)
    for dataset in datasets:
        texts = (dataset.prompt_file, dataset.system_prompt_file)
        yield from (cluster.absolute(path) for path in texts if path)


def _as_written(keys: Keys, cluster: ClusterConfig) -> Iterator[str]:
    """What the usual keys name, where others are wrong: these are told together with files that are missing."""
    models = (path_of(keys, key) for key in ("policy.model_name", "policy.tokenizer.name"))
    yield from (cluster.absolute_or_id(name) for name in models if name)
    rows = (path_of(keys, key) for key in ("data.train_data_path", "data.val_data_path"))
    yield from (as_input(_of_name(path), cluster) for path in rows if path)
    texts = (path_of(keys, key) for key in ("data.prompt_file", "data.system_prompt_file"))
    yield from (cluster.absolute(path) for path in texts if path)


def _of_name(path: str) -> str:
    """The data set on the hub that goes by a name, as ``rajpurkar/squad`` by ``squad``; any other path as it is."""
    from skills_pipe.training.config.dataset_names import named_by

    named = named_by(path)
    return named[1].get("data_path", path) if named else path
