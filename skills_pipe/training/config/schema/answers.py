"""Section ``sft.val_answers``: what the model is asked in validations, beside the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from skills_pipe.training.config.schema.declare import Key


@dataclass(frozen=True, kw_only=True)
class AnswersConfig:
    """Questions of the validation data that the model answers, by the most likely token each time."""

    num_samples: Annotated[
        int, Key("Questions of each validation dataset, spread evenly over it.", minimum=1, absent=16)
    ]
    max_new_tokens: Annotated[int, Key("Most tokens of an answer.", minimum=1, absent=256)]
    batch_size: Annotated[int, Key("Questions that one rank answers at once.", minimum=1, absent=16)]
    metric: Annotated[
        str | None,
        Key(
            "package.module.function of (prompts, answers, references) that gives a list of numbers, one for each "
            "answer, by the name of the metric; null: only whether the answer is the reference, exact_match.",
            absent=None,
        ),
    ]
