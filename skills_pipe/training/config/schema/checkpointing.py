"""Section ``checkpointing``: what is saved, when, and what is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from skills_pipe.training.config.schema.declare import Key


@dataclass(frozen=True, kw_only=True)
class PretrainedCheckpointConfig:
    """Weights of another run to start from."""

    path: Annotated[str, Key("Folder of the checkpoint.")]
    format: Annotated[str | None, Key("Layout of the checkpoint; null: found out.", absent=None)]


@dataclass(frozen=True, kw_only=True)
class CheckpointingConfig:
    """What is saved, when, and what is kept."""

    enabled: Annotated[bool, Key("Save checkpoints at all.")]
    checkpoint_dir: Annotated[
        str, Key("Folder of the checkpoints: step_N lies directly below it.", also=("output_dir",))
    ]
    metric_name: Annotated[
        str | None,
        Key(
            "Metric that ranks checkpoints: val:NAME or train:NAME, such as val:val_loss; null: the newest rank first.",
            also=("metric_for_best_model",),
        ),
    ]
    higher_is_better: Annotated[bool, Key("Whether a higher metric is better.", also=("greater_is_better",))]
    keep_top_k: Annotated[
        int | None,
        Key("Best checkpoints to keep, beside the latest; null: keep all.", minimum=1, also=("save_total_limit",)),
    ]
    save_period: Annotated[int, Key("Save every so many steps; 0: only at the end.", minimum=0, also=("save_steps",))]
    checkpoint_must_save_by: Annotated[
        str | None, Key('Time after the start by which a checkpoint must be saved, "DD:HH:MM:SS"; null: no limit.')
    ]
    save_optimizer: Annotated[bool, Key("Save the optimizer too; without it, resuming starts with a fresh one.")]
    ft_save_period: Annotated[
        int | None, Key("Save every so many steps for crash recovery only; null: never.", minimum=1)
    ]
    ft_keep_latest_k: Annotated[
        int | None, Key("Newest checkpoints to keep, whatever their metric; null: the latest one.", minimum=1)
    ]
    keep_steps: Annotated[
        tuple[int, ...], Key("Steps whose checkpoints are kept whatever their metric, as those to be averaged.")
    ]
    pretrained_checkpoint: Annotated[
        PretrainedCheckpointConfig | None, Key("Weights of another run to start from; null: policy.model_name.")
    ]
    model_save_format: Annotated[
        Literal["safetensors", "torch_save"] | None, Key("Format of saved weights; null: our own.")
    ]
    save_consolidated: Annotated[bool, Key("Save Hugging Face weights beside each checkpoint.")]
    model_cache_dir: Annotated[str, Key("Cache folder for consolidated weights.")]
    model_repo_id: Annotated[str, Key("Hub name written into consolidated weights.")]
    is_peft: Annotated[bool, Key("Save adapters only; on by itself where adapters are trained.")]
    peft_config: Annotated[
        Mapping[str, Any] | None, Key("Adapter settings saved with the adapters; null: from policy.")
    ]
    is_async: Annotated[
        bool | None,
        Key(
            "Write checkpoints from a copy in host memory while training goes on; null: where training is on GPUs, and "
            "keeps its shards there."
        ),
    ]
    stop_after_steps: Annotated[
        int | None,
        Key("Save and end this job, as if its time were over, after so many steps of its own; null: never.", minimum=1),
    ]
    on_change: Annotated[
        Literal["refuse", "continue"],
        Key(
            "A latest checkpoint of another base model, data set or seed: refuse it, or go on from its weights.",
            otherwise="to begin anew, name another checkpointing.checkpoint_dir, or start it by "
            "`ns nemo_rl sft --on_change=restart`, which sets the old training aside",
        ),
    ]
