"""The data of a run, as its configuration asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.schema import TrainingConfig
from skills_pipe.training.config.schema.data import DatasetConfig
from skills_pipe.training.data.batches import BatchSettings
from skills_pipe.training.data.build import DataSettings, build_dataset
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.sampler import BatchSampler
from skills_pipe.training.data.sources import DataSource, first_form
from skills_pipe.training.data.sources.conversations import Conversations
from skills_pipe.training.data.template import ChatTemplate, resolve_template


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a run trains and validates on.

    Attributes:
        train: documents to train on.
        validation: documents to validate on, None without.
        template: the chat template that both were rendered with; belongs into the exported tokenizer.
    """

    train: SftDataset
    validation: SftDataset | None
    template: ChatTemplate


def load_data(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> TrainingData:
    """Read and tokenise the training and validation rows of a configuration.

    Validation rows get the chat template that was found for the training rows, and must be of their form where it was
    inferred.

    Raises:
        ConfigError: a dataset has no path, or one of its files cannot be read.
        DataError: the rows cannot be used, see :func:`build.build_dataset`.
    """
    names = config.policy.tokenizer
    sources = [_source(dataset) for dataset in config.data.train]
    template = resolve_template(names.chat_template, tokenizer, names.chat_template_kwargs, first_form(sources))
    settings = data_settings(config)
    train = build_dataset(sources, tokenizer, template, settings)
    held_out = [_source(dataset) for dataset in config.data.validation]
    validation = build_dataset(held_out, tokenizer, template, settings) if held_out else None
    return TrainingData(train=train, validation=validation, template=template)


def data_settings(config: TrainingConfig) -> DataSettings:
    """How rows become documents."""
    data = config.data
    return DataSettings(
        max_length=min(data.max_input_seq_length, config.policy.max_total_sequence_length),
        add_bos=data.add_bos,
        add_eos=data.add_eos,
        on_bad_row=data.on_bad_row,
        overlong=data.overlong,
        only_final=config.sft.only_unmask_final,
        train_on_header=data.train_on_header,
        generation_prompt=data.add_generation_prompt,
    )


def batch_settings(config: TrainingConfig) -> BatchSettings:
    """How the documents of a global batch become microbatches."""
    packing = config.policy.sequence_packing
    return BatchSettings(
        capacity=packing.train_mb_tokens,
        packing=packing.enabled,
        algorithm=packing.algorithm,
        micro_batch_size=config.policy.train_micro_batch_size,
        largest_first=packing.microbatch_order == "largest_first",
        seed=config.sft.seed,
    )


def batch_sampler(config: TrainingConfig, num_samples: int) -> BatchSampler:
    """The order of the training samples."""
    return BatchSampler(
        num_samples, config.policy.train_global_batch_size, seed=config.sft.seed, shuffle=config.data.shuffle
    )


def _source(dataset: DatasetConfig) -> DataSource:
    if dataset.data_path is None:
        raise ConfigError(
            f"the dataset {dataset.dataset_name!r} has no path",
            where="data",
            fix="set data.train_data_path (data.train.data_path) to a .jsonl or .json file",
        )
    rows = Conversations(
        input_key=dataset.input_key,
        output_key=dataset.output_key,
        chat_key=dataset.chat_key,
        tool_key=dataset.tool_key,
        system_key=dataset.system_key,
        system_prompt=_text(dataset.system_prompt_file, "system_prompt_file") or dataset.system_prompt,
        prompt=_prompt(dataset.prompt_file),
    )
    return DataSource(path=Path(dataset.data_path), format=rows)


def _prompt(path: str | None) -> str | None:
    prompt = _text(path, "prompt_file")
    if prompt is None:
        return None
    try:
        has_place = "\0" in prompt.format("\0")
    except (IndexError, KeyError, ValueError) as error:
        raise ConfigError(
            f"{path} is no prompt: {error}", where="data.prompt_file", fix="write {{ and }} for braces"
        ) from error
    if not has_place:
        raise ConfigError(f"{path} has no {{}} to put the question into", where="data.prompt_file")
    return prompt


def _text(path: str | None, key: str) -> str | None:
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", where=f"data.{key}") from error
