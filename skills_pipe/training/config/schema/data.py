"""Section ``data``: as it may be written (two layouts), and as programs read it (one list of datasets per use)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from skills_pipe.training.config.schema.declare import Key

BadRow = Literal["error", "skip"]
CutEnd = Literal["left", "right"]
Overlong = Literal["drop", "truncate", "error"]
Tokenize = Literal["segments", "whole"]


@dataclass(frozen=True, kw_only=True)
class ChatTokens:
    """``chat_prompt_tokens``: what stands between the parts of a chat in the format of NeMo-Aligner."""

    system_turn_start: Annotated[str, Key("Before the system turn.", absent="\x00")] = "\x00"
    turn_start: Annotated[str, Key("Before each other turn, and after the last one.", absent="\x11")] = "\x11"
    label_start: Annotated[str, Key("Before the label of a turn.", absent="\x12")] = "\x12"
    end_of_turn: Annotated[str, Key("After the text of a turn.", absent="\n")] = "\n"
    end_of_name: Annotated[str, Key("After the name of a turn, and after its label.", absent="\n")] = "\n"


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """One dataset: where its rows are and how they are read; the keys are described in :class:`DatasetSection`."""

    dataset_name: str
    name: str
    data_path: str | None
    split: str | None
    subset: str | None
    revision: str | None
    weight: float
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
    prompt_template: str
    truncation_field: str
    truncation_method: CutEnd
    chat_prompt_tokens: ChatTokens


@dataclass(frozen=True, kw_only=True)
class DatasetSection:
    """One dataset as it is written: what is left out comes from ``data.default``, then from ``data``."""

    dataset_name: Annotated[str | None, Key("Overrides data.dataset_name.", absent=None)]
    name: Annotated[
        str | None, Key("Name of its metrics, val:NAME/val_loss; null: that of its file or dataset.", absent=None)
    ]
    data_path: Annotated[
        str | None, Key("File of rows, folder, pattern such as rows-*.jsonl, or a Hugging Face dataset.", absent=None)
    ]
    split: Annotated[str | None, Key("Split of a Hugging Face dataset or of a folder.", absent=None)]
    subset: Annotated[str | None, Key("Configuration of a Hugging Face dataset.", absent=None)]
    revision: Annotated[str | None, Key("Branch, tag or commit of a Hugging Face dataset; null: main.", absent=None)]
    weight: Annotated[
        float | None,
        Key("Times that its rows are trained in an epoch; 0.5: a half of them; null: 1.", above=0, absent=None),
    ]
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
        float | None,
        Key("Part of the rows, or from 1 on their number, that is set aside for validation.", above=0, absent=None),
    ]
    seed: Annotated[int | None, Key("Seed of that split, and of a weight's choice of rows.", absent=None)]
    download_dir: Annotated[str | None, Key("Where downloads are kept; null: as HF_HOME says.", absent=None)]
    prompt_template: Annotated[
        str | None,
        Key("aligner_prompt_response: the text of a row, ending in {answer key}; null: {input} {output}.", absent=None),
    ]
    truncation_field: Annotated[
        str | None,
        Key("aligner_prompt_response: keys that are cut when a row is too long; null: input.", absent=None),
    ]
    truncation_method: Annotated[
        CutEnd | None, Key("Which end of those is cut off, left or right; null: right.", absent=None)
    ]
    chat_prompt_tokens: Annotated[
        ChatTokens | None, Key("aligner_chat: what stands between the parts of a chat.", absent=None)
    ]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which rows to train on, and how they become tokens; the keys are described in :class:`DataSection`.

    Attributes:
        train: datasets whose rows are joined in this order; never empty.
        validation: datasets to validate on, each by itself under its name; none when empty.
    """

    train: tuple[DatasetConfig, ...]
    validation: tuple[DatasetConfig, ...]
    max_input_seq_length: int
    add_bos: bool
    add_eos: bool
    add_generation_prompt: bool
    train_on_header: bool
    answer_only_loss: bool
    tokenize: Tokenize | None
    on_bad_row: BadRow
    on_untrained: BadRow
    overlong: Overlong
    shuffle: bool
    length_order: Literal["sorted", "bucketed"] | None
    num_workers: int | None
    use_tiktoken: bool
    cache_dir: str | None
    force_reprocess: bool


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """``data`` as it is written: flat paths for one dataset, or ``train``, ``validation`` and ``default``."""

    train_data_path: Annotated[
        str | None,
        Key("Training rows: a file, folder or pattern of files, a Hugging Face dataset, or a dataset by its name."),
    ]
    val_data_path: Annotated[str | None, Key("Validation rows, as train_data_path; null: no validation.")]
    train_split: Annotated[str | None, Key("Split of a Hugging Face dataset to train on; null: train.")]
    val_split: Annotated[str | None, Key("Split of a Hugging Face dataset to validate on; null: validation.")]
    dataset_name: Annotated[
        str | None,
        Key(
            "Format of the rows or name of a dataset, see datasets.md; package.module.Class for your own; null: that "
            "of the dataset that the path names, else ResponseDataset."
        ),
    ]
    input_key: Annotated[str | None, Key("Field with the question; null: input.")]
    output_key: Annotated[str | None, Key("Field with the answer; null: output.")]
    chat_key: Annotated[str | None, Key("Field with the list of messages; null: messages.")]
    system_key: Annotated[str | None, Key("Field with the system message; null: none.")]
    system_prompt: Annotated[str | None, Key("System message of rows that have none; null: none.")]
    tool_key: Annotated[str | None, Key("Field with the tools that the chat template shows; null: tools.")]
    use_preserving_dataset: Annotated[
        bool, Key("Keep each row exactly as it is; false: give all the same keys, as Arrow does.")
    ]
    prompt_file: Annotated[str | None, Key("Text file with a {} that the first user message is put into.")]
    system_prompt_file: Annotated[str | None, Key("Text file with the system message.")]
    split: Annotated[str | None, Key("Older name of train_split.")]
    subset: Annotated[str | None, Key("Configuration of a Hugging Face dataset; null: its only or default one.")]
    split_validation_size: Annotated[
        float | None,
        Key(
            "Part of the training rows, or from 1 on their number, that is set aside for validation; null: none.",
            above=0,
            also=("val_set_size", "test_size"),
        ),
    ]
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
    answer_only_loss: Annotated[
        bool, Key("Train on what the assistant writes; false: on all of the text, whatever messages say.")
    ]
    tokenize: Annotated[
        Tokenize | None,
        Key(
            "Trained and other text each by itself (segments), or as one text (whole); null: whole where the template "
            "marks answers by generation tags, else segments."
        ),
    ]
    on_bad_row: Annotated[BadRow, Key("A row that cannot be read: error, or skip and count it.")]
    on_untrained: Annotated[BadRow, Key("A sample without a trained token: error, or skip and count it.")]
    overlong: Annotated[Overlong, Key("A sample longer than max_input_seq_length: drop, truncate or error.")]
    shuffle: Annotated[bool, Key("Shuffle the training data, anew in each epoch.")]
    length_order: Annotated[
        Literal["sorted", "bucketed"] | None,
        Key(
            "sorted: shortest samples first, in every epoch; bucketed: each step has samples of similar length, the "
            "steps in random order; null: lengths don't matter.",
            absent=None,
        ),
    ]
    num_workers: Annotated[int | None, Key("Processes that tokenize; null: one for each core.", minimum=0)]
    use_tiktoken: Annotated[
        bool,
        Key(
            "Tokenize files of 5 MB and more by tiktoken where it is verified to give the same tokens, which is sooner."
        ),
    ]
    cache_dir: Annotated[
        str | None,
        Key(
            "Folder that keeps tokenized data for other ranks and jobs; null: $SKILLS_PIPE_CACHE, else .cache beside "
            "checkpointing.checkpoint_dir, else ~/.cache/skills_pipe."
        ),
    ]
    force_reprocess: Annotated[bool, Key("Tokenize again although a cached result exists.")]
