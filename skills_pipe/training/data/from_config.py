"""The data of a run, as its configuration asks for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from skills_pipe.training.config.schema import TrainingConfig
from skills_pipe.training.config.schema.policy import TokenizerConfig
from skills_pipe.training.data.batches import BatchSettings
from skills_pipe.training.data.build import BuildOptions, DataSettings, build_dataset
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.dynamic import Budget
from skills_pipe.training.data.kinds import check_kinds
from skills_pipe.training.data.mixture import Mixture, Share
from skills_pipe.training.data.notes import reading_notes, reading_warnings
from skills_pipe.training.data.packs import Packs
from skills_pipe.training.data.records.line_index import ENV_CACHE, cache_folder
from skills_pipe.training.data.rows import Conversation, Pieces
from skills_pipe.training.data.sampler import BatchSampler, ByLength
from skills_pipe.training.data.sources import DataSource, first_row
from skills_pipe.training.data.sources.configured import find_sources
from skills_pipe.training.data.template import INFER, ChatTemplate, resolve_template
from skills_pipe.training.data.workers.pool import available_cores


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a run trains and validates on.

    Attributes:
        train: documents to train on.
        validation: documents to validate on, by the name of their dataset; empty without.
        template: the chat template that all of them were rendered with; belongs into the exported tokenizer.
        notes: what is unusual about how the rows were read, as sentences.
        warnings: what of that is most likely a mistake.
    """

    train: SftDataset
    validation: Mapping[str, SftDataset]
    template: ChatTemplate
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def load_data(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> TrainingData:
    """Find, read and tokenise the training and validation rows of a configuration.

    Validation rows get the chat template that was found for the training rows, and must be of their form where it was
    inferred.

    Raises:
        ConfigError: a key of a dataset, or a file that one names, cannot be used.
        DataError: the rows cannot be found or used, see :func:`build.build_dataset`.
    """
    sources = find_sources(config.data)
    template = template_of(config.policy.tokenizer, tokenizer, sources.all_train)
    settings, options = data_settings(config), build_options(config)
    check_kinds(template, sources)
    validation = _build_each(sources.validation, tokenizer, template, config)
    weights = [dataset.weight for dataset in config.data.train]
    if all(weight == 1 for weight in weights):
        train = build_dataset(sources.all_train, tokenizer, template, settings, options)
    else:
        parts = [build_dataset(rows, tokenizer, template, settings, options) for rows in sources.train]
        seeds = [dataset.seed for dataset in config.data.train]
        train = Mixture([Share(*share) for share in zip(parts, weights, seeds, strict=True)])
    return TrainingData(
        train=train,
        validation=validation,
        template=template,
        notes=reading_notes(config.data),
        warnings=reading_warnings(config.data, sources),
    )


def load_validation(config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> dict[str, SftDataset]:
    """The validation data of :func:`load_data` alone; of the training rows only the first is read.

    Raises:
        ConfigError, DataError: as there.
    """
    sources = find_sources(config.data)
    template = template_of(config.policy.tokenizer, tokenizer, sources.all_train)
    check_kinds(template, sources)
    return _build_each(sources.validation, tokenizer, template, config)


def template_of(
    setting: TokenizerConfig, tokenizer: PreTrainedTokenizerBase, sources: Sequence[DataSource]
) -> ChatTemplate:
    """The chat template that a configuration asks for; rows that need none infer :data:`template.PASSTHROUGH`."""
    row = first_row(sources)
    inferred = (setting.chat_template or "").lower() == INFER
    chat_template = None if inferred and isinstance(row, Pieces) else setting.chat_template
    form = row.form if isinstance(row, Conversation) else None
    return resolve_template(chat_template, tokenizer, setting.chat_template_kwargs, form)


def _build_each(
    named: Mapping[str, Sequence[DataSource]],
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    config: TrainingConfig,
) -> dict[str, SftDataset]:
    settings, options = data_settings(config), build_options(config)
    return {name: build_dataset(rows, tokenizer, template, settings, options) for name, rows in named.items()}


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
        answers_only=data.answer_only_loss,
        tokenize=data.tokenize,
        on_untrained=data.on_untrained,
        train_on_header=data.train_on_header,
        generation_prompt=data.add_generation_prompt,
    )


def build_options(config: TrainingConfig) -> BuildOptions:
    """How data sets are made, and where they are kept: beside the checkpoints, which all ranks can see."""
    data, checkpointing = config.data, config.checkpointing
    if data.cache_dir is not None:
        cache = Path(data.cache_dir)
    elif os.environ.get(ENV_CACHE) or not checkpointing.enabled:
        cache = cache_folder()
    else:
        cache = Path(checkpointing.checkpoint_dir).parent / ".cache"
    workers = available_cores() if data.num_workers is None else data.num_workers
    return BuildOptions(
        workers=workers, cache=cache, again=data.force_reprocess, progress=True, tiktoken=data.use_tiktoken
    )


def batch_settings(config: TrainingConfig, dataset: SftDataset | None = None) -> BatchSettings:
    """How the documents of a global batch become microbatches; ``dataset`` is packed as a whole where that is asked."""
    packing, grouping = config.policy.sequence_packing, config.policy.dynamic_batching
    whole = dataset is not None and packing.enabled and packing.scope == "dataset"
    budget = Budget(tokens=grouping.train_mb_tokens, multiple=grouping.sequence_length_round)
    return BatchSettings(
        capacity=packing.train_mb_tokens,
        packing=packing.enabled,
        algorithm=packing.algorithm,
        micro_batch_size=config.policy.train_micro_batch_size,
        largest_first=packing.microbatch_order == "largest_first",
        seed=config.sft.seed,
        dynamic=budget if grouping.enabled else None,
        packs=_packs(config, dataset) if whole and dataset is not None else None,
    )


def batch_sampler(config: TrainingConfig, dataset: SftDataset, batches: BatchSettings) -> BatchSampler:
    """The order of the training samples, or of the rows that they are packed into."""
    return BatchSampler(
        batches.units(dataset),
        config.policy.train_global_batch_size,
        seed=config.sft.seed,
        shuffle=config.data.shuffle,
        by_length=ByLength(config.data.length_order, dataset.lengths) if config.data.length_order else None,
    )


def _packs(config: TrainingConfig, dataset: SftDataset) -> Packs:
    packing = config.policy.sequence_packing
    return Packs(dataset.lengths, packing.train_mb_tokens, packing.algorithm, seed=config.sft.seed)
