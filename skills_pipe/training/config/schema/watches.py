"""Sections ``sft.early_stopping`` and ``sft.loss_spikes``: what a run does by itself when its loss goes astray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from skills_pipe.training.config.schema.declare import Key


@dataclass(frozen=True, kw_only=True)
class EarlyStoppingConfig:
    """When validation no longer gets better, the run is complete."""

    patience: Annotated[int, Key("Validations in a row without a better metric after which the run ends.", minimum=1)]
    metric: Annotated[str, Key("Metric that has to fall: val:NAME, such as val:val_loss.", absent="val:val_loss")]
    min_delta: Annotated[float, Key("How much lower counts as better.", minimum=0, absent=0.0)]


@dataclass(frozen=True, kw_only=True)
class LossSpikesConfig:
    """What a jump of the loss or of the gradient norm is."""

    deviations: Annotated[
        float,
        Key("A step is passed over that lies more standard deviations than this above the mean.", above=0, absent=6.0),
    ]
    window: Annotated[
        int,
        Key("Latest steps of which mean and deviation are taken; half of them must be there.", minimum=4, absent=128),
    ]
