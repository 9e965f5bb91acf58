"""What must hold where the model answers questions in validations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.schema import TrainingConfig
from skills_pipe.training.config.schema.answers import AnswersConfig

_KEY = "sft.val_answers"


def answer_metric(name: str, sets: Sequence[str], settings: AnswersConfig | None) -> bool:
    """Whether ``name`` is a metric of answers, over all validation sets or of one of several.

    How a function of the user's names its metrics is not known before it has run.
    """
    use, _, rest = name.partition(":")
    one, _, metric = rest.rpartition("/")
    there = not one or (one in sets and len(sets) > 1)
    known = metric == "exact_match" or (settings is not None and settings.metric is not None and metric != "val_loss")
    return settings is not None and use == "val" and there and known


def broken_answer_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Every rule about answers that a canonical configuration breaks."""
    settings = config.sft.val_answers
    if settings is None:
        return
    where = origins.where(_KEY)
    if not config.data.validation and not any(dataset.split_validation_size for dataset in config.data.train):
        fix = "set data.val_data_path, data.validation or data.split_validation_size"
        yield ConfigError(f"{_KEY} needs validation data", where=where, fix=fix)
    if not config.data.answer_only_loss:
        what = f"{_KEY} needs questions, and with data.answer_only_loss=false all of the text counts as answer"
        yield ConfigError(what, where=where, fix="leave one of them out")
    layers = config.policy.dtensor_cfg
    sizes = (layers.tensor_parallel_size, layers.context_parallel_size, layers.expert_parallel_size)
    if layers.enabled and max(sizes) > 1:
        yield ConfigError(
            f"{_KEY} is not there for layers that ranks share (tensor, context or expert parallelism)",
            where=where,
            fix="leave it out, and evaluate the exported model by ns eval",
        )
    if settings.metric is not None and "." not in settings.metric:
        yield ConfigError(
            f"{_KEY}.metric is {settings.metric!r}, no import path",
            where=origins.where(f"{_KEY}.metric"),
            fix="write package.module.function",
        )
    saving = config.checkpointing
    if (saving.metric_name or "").endswith("exact_match") and not saving.higher_is_better:
        yield ConfigError(
            f"checkpointing.metric_name is {saving.metric_name!r}, and with checkpointing.higher_is_better=false the "
            "worst checkpoints would be kept",
            where=origins.where("checkpointing.metric_name"),
            fix="set checkpointing.higher_is_better=true",
        )
