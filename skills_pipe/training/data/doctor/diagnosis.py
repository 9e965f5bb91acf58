"""All that the doctor knows of the data of one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skills_pipe.training.config import TrainingConfig
from skills_pipe.training.data.doctor.fingerprints import Repeats
from skills_pipe.training.data.doctor.planning import (
    EpochPlan,
    LengthPlan,
    epoch_plan,
    epoch_units,
    length_plans,
    suggested_limit,
    usual_limits,
)
from skills_pipe.training.data.doctor.survey import Survey, survey
from skills_pipe.training.data.inspection.opening import OpenedData


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found.

    Attributes:
        config: of the run.
        limit: most tokens of a document.
        train: the training rows.
        validation: the validation rows, None without.
        leaked: validation rows that are training rows too.
        lengths: what several limits would mean.
        suggested: a limit that holds nearly all documents; None without documents.
        epoch: how long an epoch is.
        eos: the end-of-text token of the tokenizer, None without.
        bos: its beginning-of-text token, None without.
        weight: times that an epoch has a training row, on average.
        notes: what is unusual about how the rows are read.
    """

    config: TrainingConfig
    limit: int
    train: Survey
    validation: Survey | None
    leaked: Repeats
    lengths: tuple[LengthPlan, ...]
    suggested: int | None
    epoch: EpochPlan
    eos: str | None
    bos: str | None
    weight: float
    notes: tuple[str, ...]

    @property
    def epoch_is_estimated(self) -> bool:
        """Whether the length of an epoch is not exact: some rows were not read, or datasets have weights."""
        return not self.train.selection.whole or self.weight != 1


def diagnose(data: OpenedData, config: TrainingConfig, limits: Sequence[int] = ()) -> Diagnosis:
    """Read the rows and find out; ``limits`` are lengths to plan with, none: the usual ones."""
    recipe = data.recipe
    train, _ = survey(data.train, recipe)
    validation, leaked = survey(data.validation, recipe, train.known) if data.validation else (None, Repeats())
    lengths = train.lengths
    documents = round(train.documents_in_all * data.weight)
    tokens = round(train.tokens_in_all * data.weight)
    return Diagnosis(
        config=config,
        limit=recipe.settings.max_length,
        train=train,
        validation=validation,
        leaked=leaked,
        lengths=tuple(length_plans(lengths, limits or usual_limits(lengths, recipe.settings.max_length), config)),
        suggested=suggested_limit(lengths) if len(lengths) else None,
        epoch=epoch_plan(documents, tokens, epoch_units(documents, train.kept, config), config),
        eos=recipe.tokenizer.eos_token,
        bos=recipe.tokenizer.bos_token,
        weight=data.weight,
        notes=data.notes,
    )
