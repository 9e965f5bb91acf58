"""A dataset as a configuration names it -> the files and formats that its rows are read by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.dataset_names import is_class
from skills_pipe.training.config.schema.data import DataConfig, DatasetConfig
from skills_pipe.training.data.records.locate import Place
from skills_pipe.training.data.sources.aligner_chat import AlignerChat
from skills_pipe.training.data.sources.aligner_prompt_response import AlignerPromptResponse
from skills_pipe.training.data.sources.alpaca import Alpaca
from skills_pipe.training.data.sources.conversations import Conversations
from skills_pipe.training.data.sources.holdout import hold_out
from skills_pipe.training.data.sources.open_assistant import SYSTEM, TREES, OpenAssistant
from skills_pipe.training.data.sources.source import DataSource, RowFormat
from skills_pipe.training.data.sources.squad import Squad
from skills_pipe.training.data.sources.texts import Texts
from skills_pipe.training.data.sources.user_class import UserDataset

Use = Literal["train", "validation"]


@dataclass(frozen=True, kw_only=True)
class RunSources:
    """The files of a run.

    Attributes:
        train: for each training dataset its files.
        validation: the same by the names of the validation datasets; empty without.
    """

    train: tuple[tuple[DataSource, ...], ...]
    validation: Mapping[str, tuple[DataSource, ...]]

    @property
    def all_train(self) -> list[DataSource]:
        """The files of all training datasets, in order."""
        return [source for sources in self.train for source in sources]


@dataclass(frozen=True, kw_only=True)
class ConfiguredSources:
    """The files of one dataset.

    Attributes:
        name: what the dataset is called.
        used: rows for the use that was asked for.
        held_out: rows set aside for validation, empty without.
    """

    name: str
    used: tuple[DataSource, ...]
    held_out: tuple[DataSource, ...] = ()


def find_sources(data: DataConfig) -> RunSources:
    """Find all files that a configuration names; those on the hub are downloaded.

    Rows that are set aside from training data make a validation set of that dataset's name. What a class of the user's
    has for validation counts where the configuration names nothing else.

    Raises:
        ConfigError: a prompt file or a key of a dataset cannot be used.
        DataError: there are no such files.
    """
    train = [configured_sources(dataset, "train") for dataset in data.train]
    validation = {dataset.name: configured_sources(dataset, "validation").used for dataset in data.validation}
    named = bool(validation)
    for dataset, found in zip(data.train, train, strict=True):
        if found.held_out and not (named and is_class(dataset.dataset_name)):
            if found.name in validation:
                raise ConfigError(
                    f"2 validation datasets are called {found.name!r}",
                    where="data.train",
                    fix="give each a name of its own, such as {name: math, dataset_name: ...}",
                )
            validation[found.name] = found.held_out
    return RunSources(train=tuple(found.used for found in train), validation=validation)


def configured_sources(dataset: DatasetConfig, use: Use) -> ConfiguredSources:
    """Find the files of a dataset; those on the hub are downloaded.

    Raises:
        ConfigError: a prompt file or a key of the dataset cannot be used.
        DataError: there are no such files.
    """
    if is_class(dataset.dataset_name):
        return _of_class(dataset, use)
    place = Place(
        path=dataset.data_path or "",
        split=dataset.split,
        otherwise=use,
        subset=dataset.subset,
        revision=dataset.revision,
        cache=dataset.download_dir,
        only=TREES if dataset.dataset_name == "OpenAssistant" else None,
    )
    rows = row_format(dataset)
    sources = [DataSource(path=path, format=rows, preserving=dataset.use_preserving_dataset) for path in place.files()]
    return _with_rows_set_aside(dataset, sources)


def row_format(dataset: DatasetConfig) -> RowFormat:
    """How the rows of a dataset are read.

    Raises:
        ConfigError: a file or key of it cannot be used.
    """
    plain = Conversations(
        input_key=dataset.input_key,
        output_key=dataset.output_key,
        chat_key=dataset.chat_key,
        tool_key=dataset.tool_key,
        system_key=dataset.system_key,
        system_prompt=_text(dataset.system_prompt_file, "system_prompt_file") or dataset.system_prompt,
        prompt=_prompt(dataset.prompt_file),
    )
    match dataset.dataset_name:
        case "alpaca":
            return Alpaca(input_key=dataset.input_key, output_key=dataset.output_key)
        case "aligner_prompt_response":
            return AlignerPromptResponse(
                prompt_template=dataset.prompt_template,
                truncation_field=dataset.truncation_field,
                truncation_method=dataset.truncation_method,
            )
        case "aligner_chat":
            return AlignerChat(tokens=dataset.chat_prompt_tokens, messages=plain)
        case "text":
            return Texts()
        case "OpenAssistant":
            return OpenAssistant(conversations=replace(plain, system_prompt=plain.system_prompt or SYSTEM))
        case "squad":
            return Squad(conversations=plain)
        case _:
            return plain


def _with_rows_set_aside(dataset: DatasetConfig, sources: Sequence[DataSource]) -> ConfiguredSources:
    """The files of a dataset, some of their rows kept for validation where that is asked."""
    if dataset.split_validation_size is None:
        return ConfiguredSources(name=dataset.name, used=tuple(sources))
    sizes = [len(source.open()) for source in sources]
    sides = list(zip(sources, hold_out(sizes, dataset.split_validation_size, dataset.seed), strict=True))
    return ConfiguredSources(
        name=dataset.name,
        used=tuple(replace(source, part=kept) for source, (kept, _) in sides),
        held_out=tuple(replace(source, part=aside) for source, (_, aside) in sides),
    )


def _of_class(dataset: DatasetConfig, use: Use) -> ConfiguredSources:
    made = UserDataset.make(dataset.dataset_name, asdict(dataset))
    plain = row_format(replace(dataset, dataset_name="ResponseDataset"))
    if isinstance(plain, Conversations):
        plain = replace(
            plain, prompt=plain.prompt or made.prompt, system_prompt=plain.system_prompt or made.system_prompt
        )
    split = dataset.split or use
    path = made.write(split)
    if path is None:
        raise ConfigError(
            f"{dataset.dataset_name} has no split {split!r}",
            where=f"data.{use}.split",
            fix=f"set it to one of {', '.join(made.splits)}",
        )
    source = DataSource(path=path, format=plain, preserving=dataset.use_preserving_dataset)
    aside = made.write("validation") if use == "train" else None
    if aside is None:
        return _with_rows_set_aside(dataset, [source])
    if dataset.split_validation_size is not None:
        raise ConfigError(
            f"{dataset.dataset_name} has validation rows of its own",
            where="data.split_validation_size",
            fix="leave it out, or take them out of the class",
        )
    return ConfiguredSources(name=dataset.name, used=(source,), held_out=(replace(source, path=aside),))


def _prompt(path: str | None) -> str | None:
    prompt = _text(path, "prompt_file")
    if prompt is None:
        return None
    try:
        has_place = "\0" in prompt.format("\0")
    except (AttributeError, IndexError, KeyError, ValueError) as error:
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
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {path}: it is no text in UTF-8", where=f"data.{key}") from error
