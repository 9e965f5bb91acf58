"""trlX's one function: a configuration and samples -> a trained trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from skills_pipe.errors import ConfigError
from skills_pipe.training.api.trlx.configs import TRLConfig
from skills_pipe.training.api.trlx.nemo_sft_trainer import Metrics
from skills_pipe.training.api.trlx.registry import get_trainer


def train(
    *,
    samples: Sequence[str | Sequence[str]],
    config: TRLConfig,
    eval_prompts: Sequence[str] | None = None,
    metric_fn: Metrics | None = None,
    model_path: str | None = None,
    stop_sequences: Sequence[str] = (),
) -> Any:
    """Fine-tune on ``samples`` and return the trainer.

    Args:
        samples: texts, or dialogues ``[prompt, output, prompt, output, ...]``.
        config: what, how and by which registered trainer (``train.trainer``, ``train.trainer_kwargs``).
        eval_prompts: texts that the trained model goes on with, for ``metric_fn``.
        metric_fn: judges these; its means lie in ``trainer.metrics``.
        model_path: takes the place of ``config.model.model_path``.
        stop_sequences: generated texts end before any of these.

    Raises:
        ConfigError: the configuration, or what it asks for, cannot be used.
        DataError: the samples cannot be used.
    """
    if not samples:
        raise ConfigError("samples are missing", where="trlx.train", fix="give a list of texts, or of dialogues")
    if model_path is not None:
        config = config.evolve(model={"model_path": model_path})
    trainer = get_trainer(config.train.trainer)(
        config=config, metric_fn=metric_fn, stop_sequences=stop_sequences, **config.train.trainer_kwargs
    )
    trainer.eval_prompts = list(eval_prompts or [])
    trainer.make_experience(samples, config.train.seq_length)
    trainer.learn()
    return trainer
