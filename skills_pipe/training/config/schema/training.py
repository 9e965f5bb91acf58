"""The tree: what the sections of the training configuration are, and the sections ``sft`` and ``cluster``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from skills_pipe.training.config.schema.answers import AnswersConfig
from skills_pipe.training.config.schema.checkpointing import CheckpointingConfig
from skills_pipe.training.config.schema.data import DataConfig, DataSection
from skills_pipe.training.config.schema.declare import Key
from skills_pipe.training.config.schema.logger import LoggerConfig
from skills_pipe.training.config.schema.policy import PolicyConfig
from skills_pipe.training.config.schema.watches import EarlyStoppingConfig, LossSpikesConfig


@dataclass(frozen=True, kw_only=True)
class SftConfig:
    """How long to train, and when to validate."""

    max_num_epochs: Annotated[
        int | None,
        Key(
            "Passes over the training data; null: as many as max_num_steps takes, or 1 when that is null too.",
            minimum=1,
            also=("num_train_epochs", "num_epochs", "max_epochs", "epochs"),
        ),
    ]
    max_num_steps: Annotated[
        int | None,
        Key("Optimizer steps at most; null: bounded by max_num_epochs alone.", minimum=1, also=("max_steps",)),
    ]
    val_period: Annotated[
        int,
        Key("Validate every so many steps; 0: not periodically.", minimum=0, also=("eval_steps", "val_check_interval")),
    ]
    val_batches: Annotated[
        int, Key("Batches of val_global_batch_size in one validation; 0: the whole validation data.")
    ]
    val_global_batch_size: Annotated[int, Key("Samples in one validation batch, over all ranks.", minimum=1)]
    val_micro_batch_size: Annotated[int, Key("Samples that one rank validates at once.", minimum=1)]
    val_at_start: Annotated[bool, Key("Validate before the first step; not again on resume.")]
    val_at_end: Annotated[
        bool | None,
        Key("Validate after the last step; null: if checkpointing.metric_name comes from validation.", absent=None),
    ]
    val_answers: Annotated[
        AnswersConfig | None,
        Key("Questions of the validation data that the model answers in each validation; null: none.", absent=None),
    ]
    seed: Annotated[int, Key("Seed of the order of the data, of dropout and of new weights.", minimum=0)]
    only_unmask_final: Annotated[bool, Key("Train on the last message of a conversation only.", absent=False)]
    early_stopping: Annotated[
        EarlyStoppingConfig | None, Key("End the run when validation no longer gets better; null: never.", absent=None)
    ]
    loss_spikes: Annotated[
        LossSpikesConfig | None,
        Key("Make no update from steps whose loss or gradient norm jumps; null: make it.", absent=None),
    ]
    max_nonfinite_steps: Annotated[
        int,
        Key(
            "Steps in a row whose loss or gradient is no number that are passed over; one more ends the run.",
            minimum=0,
            absent=0,
        ),
    ]
    ema_decay: Annotated[
        float | None,
        Key(
            "Keep an exponential moving average of the weights, with this share of the old average at each step; "
            "it is saved beside them and exported with --ema. null: none.",
            minimum=0,
            absent=None,
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """The machines that the job runs on; the launcher sets this."""

    gpus_per_node: Annotated[int, Key("GPUs, hence ranks, on each node; 0: one rank on the CPU.", minimum=0)]
    num_nodes: Annotated[int, Key("Nodes of the job.", minimum=1)]
    segment_size: Annotated[int | None, Key("Nodes in one NVLink domain; null: no placement by domain.", minimum=1)]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that decides a training run."""

    sft: Annotated[SftConfig, Key("How long to train, and when to validate.")]
    checkpointing: Annotated[CheckpointingConfig, Key("What is saved, when, and what is kept.")]
    policy: Annotated[PolicyConfig, Key("The model, its optimizer, its batches and how it is spread over ranks.")]
    data: Annotated[DataConfig, Key("Which rows to train on, and how they become tokens.", written=DataSection)]
    logger: Annotated[LoggerConfig, Key("Where metrics go.")]
    cluster: Annotated[ClusterConfig, Key("The machines that the job runs on.")]
