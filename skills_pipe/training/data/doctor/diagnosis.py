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
        positions: that the model was made for, None where that is not known.
        notes: what is unusual about how the rows are read.
        warnings: what of that is most likely a mistake.
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
    positions: int | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def epoch_is_estimated(self) -> bool:
        """Whether the length of an epoch is not exact: some rows were not read, or datasets have weights."""
        return not self.train.selection.whole or self.weight != 1


def diagnose(
    data: OpenedData, config: TrainingConfig, limits: Sequence[int] = (), *, positions: int | None = None
) -> Diagnosis:
    """Read the rows and find out.

    Args:
        data: its rows, not yet read.
        config: of the run.
        limits: lengths to plan with, none: the usual ones.
        positions: that the model was made for, None where that is not known.
    """
    recipe = data.recipe
    train, _ = survey(data.train, recipe)
    validation, leaked = survey(data.validation, recipe, train.known) if data.validation else (None, Repeats())
    lengths, configured = train.lengths, recipe.settings.max_length
    documents = round(train.documents_in_all * data.weight)
    tokens = round(train.tokens_in_all * data.weight)
    return Diagnosis(
        config=config,
        limit=configured,
        train=train,
        validation=validation,
        leaked=leaked,
        lengths=tuple(length_plans(lengths, limits or usual_limits(lengths, configured, positions), config)),
        suggested=suggested_limit(lengths, positions) if len(lengths) else None,
        epoch=epoch_plan(documents, tokens, epoch_units(documents, train.kept, config), config),
        eos=recipe.tokenizer.eos_token,
        bos=recipe.tokenizer.bos_token,
        weight=data.weight,
        positions=positions,
        notes=data.notes,
        warnings=data.warnings,
    )
