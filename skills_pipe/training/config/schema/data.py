"""Section ``data``: as it may be written (two layouts), and as programs read it (one list of datasets per use)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from skills_pipe.training.config.schema.declare import Key

BadRow = Literal["error", "skip"]
Overlong = Literal["drop", "truncate", "error"]


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """One dataset: where its rows are and how they are read; the keys are described in :class:`DatasetSection`."""

    dataset_name: str
    data_path: str | None
    split: str | None
    subset: str | None
    input_key: str
    output_key: str
    chat_key: str
    system_key: str | None
    system_prompt: str | None
    tool_key: str
    use_preserving_dataset: bool
    prompt_file: str | None
    system_prompt_file: str | None
    processor: str
    split_validation_size: float | None
    seed: int
    download_dir: str | None


@dataclass(frozen=True, kw_only=True)
class DatasetSection:
    """One dataset as it is written: what is left out comes from ``data.default``, then from ``data``."""

    dataset_name: Annotated[str | None, Key("Overrides data.dataset_name.", absent=None)]
    data_path: Annotated[str | None, Key("File of rows, or a Hugging Face dataset.", absent=None)]
    split: Annotated[str | None, Key("Split of a Hugging Face dataset.", absent=None)]
    subset: Annotated[str | None, Key("Configuration of a Hugging Face dataset.", absent=None)]
    input_key: Annotated[str | None, Key("Overrides data.input_key.", absent=None)]
    output_key: Annotated[str | None, Key("Overrides data.output_key.", absent=None)]
    chat_key: Annotated[str | None, Key("Overrides data.chat_key.", absent=None)]
    system_key: Annotated[str | None, Key("Overrides data.system_key.", absent=None)]
    system_prompt: Annotated[str | None, Key("Overrides data.system_prompt.", absent=None)]
    tool_key: Annotated[str | None, Key("Overrides data.tool_key.", absent=None)]
    use_preserving_dataset: Annotated[bool | None, Key("Overrides data.use_preserving_dataset.", absent=None)]
    prompt_file: Annotated[str | None, Key("Overrides data.prompt_file.", absent=None)]
    system_prompt_file: Annotated[str | None, Key("Overrides data.system_prompt_file.", absent=None)]
    processor: Annotated[str | None, Key("How rows become conversations; null or sft_processor.", absent=None)]
    split_validation_size: Annotated[
        float | None, Key("Part or number of rows set aside for validation.", above=0, absent=None)
    ]
    seed: Annotated[int | None, Key("Seed of that split.", absent=None)]
    download_dir: Annotated[str | None, Key("Where downloads are kept.", absent=None)]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which rows to train on, and how they become tokens; the keys are described in :class:`DataSection`.

    Attributes:
        train: datasets whose rows are joined in this order; never empty.
        validation: datasets to validate on, none when empty.
    """

    train: tuple[DatasetConfig, ...]
    validation: tuple[DatasetConfig, ...]
    max_input_seq_length: int
    add_bos: bool
    add_eos: bool
    add_generation_prompt: bool
    train_on_header: bool
    on_bad_row: BadRow
    overlong: Overlong
    shuffle: bool
    num_workers: int
    force_reprocess: bool


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """``data`` as it is written: flat paths for one dataset, or ``train``, ``validation`` and ``default``."""

    train_data_path: Annotated[str | None, Key("Training rows: a .jsonl or .json file, or a Hugging Face dataset.")]
    val_data_path: Annotated[str | None, Key("Validation rows, as train_data_path; null: no validation.")]
    train_split: Annotated[str | None, Key("Split of a Hugging Face dataset to train on; null: train.")]
    val_split: Annotated[str | None, Key("Split of a Hugging Face dataset to validate on; null: validation.")]
    dataset_name: Annotated[
        str, Key("ResponseDataset (input and output), openai_format (messages), or a dataset by name.")
    ]
    input_key: Annotated[str | None, Key("Field with the question; null: input.")]
    output_key: Annotated[str | None, Key("Field with the answer; null: output.")]
    chat_key: Annotated[str | None, Key("Field with the list of messages; null: messages.")]
    system_key: Annotated[str | None, Key("Field with the system message; null: none.")]
    system_prompt: Annotated[str | None, Key("System message of rows that have none; null: none.")]
    tool_key: Annotated[str | None, Key("Field with the tools that the chat template shows; null: tools.")]
    use_preserving_dataset: Annotated[bool, Key("Keep tools exactly as they stand in the file; always so here.")]
    prompt_file: Annotated[str | None, Key("Text file with a {} that the first user message is put into.")]
    system_prompt_file: Annotated[str | None, Key("Text file with the system message.")]
    split: Annotated[str | None, Key("Older name of train_split.")]
    seed: Annotated[int | None, Key("Seed of a validation split; null: sft.seed.")]
    train: Annotated[DatasetSection | tuple[DatasetSection, ...] | None, Key("Training dataset, or a list of them.")]
    validation: Annotated[
        DatasetSection | tuple[DatasetSection, ...] | None, Key("Validation dataset, or a list of them.")
    ]
    default: Annotated[DatasetSection | None, Key("What datasets in train and validation leave out.")]
    max_input_seq_length: Annotated[
        int | None, Key("Longest sample in tokens; null: policy.max_total_sequence_length.", minimum=1)
    ]
    add_bos: Annotated[bool, Key("Begin each sample with the tokenizer's begin token, unless it already does.")]
    add_eos: Annotated[bool, Key("End each sample with the tokenizer's end token, unless it already does.")]
    add_generation_prompt: Annotated[
        bool, Key("Render the assistant's header with the message before it; it is not trained on either way.")
    ]
    train_on_header: Annotated[
        bool, Key("Train on the assistant's header too, and tokenize message by message, as NeMo-RL does.")
    ]
    on_bad_row: Annotated[BadRow, Key("A row that cannot be read: error, or skip and count it.")]
    overlong: Annotated[Overlong, Key("A sample longer than max_input_seq_length: drop, truncate or error.")]
    shuffle: Annotated[bool, Key("Shuffle the training data, anew in each epoch.")]
    num_workers: Annotated[int, Key("Processes that tokenize.", minimum=0)]
    force_reprocess: Annotated[bool, Key("Tokenize again although a cached result exists.")]
