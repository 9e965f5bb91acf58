"""What of a diagnosis needs attention: what, where and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from skills_pipe.training.data.chunk import NOTHING_TRAINED
from skills_pipe.training.data.doctor.diagnosis import Diagnosis
from skills_pipe.training.data.doctor.survey import Survey
from skills_pipe.training.data.lost import MANY_LOST
from skills_pipe.training.models.positions import beyond_positions

_MANY_PROMPTS: Final = 0.05
_FEW_TRAINED: Final = 0.01
_ALL_TRAINED: Final = 0.5
_MANY_REPEATED: Final = 0.01
_GENEROUS: Final = 4
_MANY_LEFT_OVER: Final = 0.25


class Severity(str, Enum):
    """How bad a finding is."""

    ERROR = "error"
    """Training refuses the data, or the model will be useless."""
    WARNING = "warning"
    """The model, or what is measured of it, will be worse than it could be."""
    NOTE = "note"
    """Worth knowing."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that needs attention.

    Attributes:
        severity: how bad it is.
        what: what is wrong, a sentence without a full stop.
        where: rows, files or keys, None where it is the data as a whole.
        fix: what to do, as an imperative without a full stop.
    """

    severity: Severity
    what: str
    where: str | None
    fix: str

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.what}{place}: {self.fix}"


def findings(diagnosis: Diagnosis) -> list[Finding]:
    """All findings, the worst first."""
    found = [
        *_faults(diagnosis),
        *_size(diagnosis),
        *_stops(diagnosis),
        *_beginnings(diagnosis),
        *_lengths(diagnosis),
        *_positions(diagnosis),
        *_supervision(diagnosis),
        *_repeats(diagnosis),
        *_validation(diagnosis),
        *_reading(diagnosis),
    ]
    order = list(Severity)
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _finding(severity: Severity, what: str, fix: str, where: str | None = None) -> Finding:
    return Finding(severity=severity, what=what, where=where, fix=fix)


def _faults(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Rows that cannot be used, each by itself."""
    refused = diagnosis.config.data.on_bad_row == "error"
    severity = Severity.ERROR if refused else Severity.WARNING
    fix = "correct the row, or set ++data.on_bad_row=skip" if refused else "correct the row; it is left out"
    for part in _surveys(diagnosis):
        for fault in part.faults:
            yield _finding(severity, fault.what, fix, fault.where)
        more = part.fault_count - len(part.faults)
        if more:
            yield _finding(severity, f"{more:,} more rows cannot be used", fix)


def _size(diagnosis: Diagnosis) -> Iterator[Finding]:
    epoch = diagnosis.epoch
    if not diagnosis.train.report.rows_read:
        yield _finding(Severity.ERROR, "the training data has no rows", "see whether it is the right file")
    elif not diagnosis.train.report.documents:
        yield _finding(Severity.ERROR, "no document is left to train on", "look at the other findings")
    elif not epoch.steps:
        yield _finding(
            Severity.ERROR,
            f"{epoch.units:,} {epoch.unit} do not fill one global batch of {epoch.batch_size:,}",
            f"set ++policy.train_global_batch_size={epoch.units} or less, or add data",
            "policy.train_global_batch_size",
        )
    elif epoch.left_over > _MANY_LEFT_OVER * epoch.units:
        # One step more of as many units as there are for it.
        size = epoch.units // (epoch.steps + 1)
        others = ", others in each" if diagnosis.config.data.shuffle else ", the same in each"
        yield _finding(
            Severity.WARNING,
            f"{epoch.left_over:,} of {epoch.units:,} {epoch.unit} fill no global batch of {epoch.batch_size:,} and are "
            f"not trained on in an epoch{others}",
            f"set ++policy.train_global_batch_size={size}, which leaves {epoch.units % size:,}, or add data",
            "policy.train_global_batch_size",
        )


def _stops(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Whether the model learns to stop."""
    report = diagnosis.train.report
    none = report.warnings()
    for sentence in none:
        yield _finding(Severity.ERROR, *_what_and_fix(sentence), "data.add_eos")
    if report.turns_without_stop and not none:
        yield _finding(
            Severity.WARNING,
            f"{report.turns_without_stop:,} of {report.turns:,} answers end without a stop token",
            "see whether they are cut off; `ns data preview` marks them",
        )
    ends = [token for token, _ in diagnosis.train.endings.last.most_common() if token is not None]
    if ends and diagnosis.eos is not None and diagnosis.eos not in ends:
        yield _finding(
            Severity.NOTE,
            f"answers end with {' or '.join(ends[:3])}, while the end-of-text token is {diagnosis.eos}",
            "generate with the configuration of the exported model, which names both",
        )
    if diagnosis.train.endings.padding:
        yield _finding(
            Severity.WARNING,
            f"{diagnosis.train.endings.padding:,} documents have trained padding tokens",
            "take the padding out of the texts: training adds none",
        )


def _beginnings(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Beginning-of-text tokens: one at the start of every document, or of none."""
    part, bos = diagnosis.train, diagnosis.bos
    ends = part.endings
    if part.report.doubled_bos:
        yield _finding(
            Severity.WARNING,
            f"{part.report.doubled_bos:,} documents began with {bos} twice; one was taken out",
            "leave it out of the rows, or set ++data.add_bos=false",
        )
    if ends.bos_inside:
        yield _finding(
            Severity.WARNING,
            f"{ends.bos_inside:,} documents have {bos} behind their start",
            "look at them with `ns data preview`: their rows may hold a template already",
        )
    if 0 < ends.with_bos < ends.documents:
        yield _finding(
            Severity.WARNING,
            f"{ends.with_bos:,} of {ends.documents:,} documents begin with {bos}, the others do not",
            "set ++data.add_bos=true, so that all do",
            "data.add_bos",
        )
    if part.expects_bos and ends.documents and not ends.with_bos:
        yield _finding(
            Severity.WARNING,
            f"no document begins with {bos}, which the tokenizer puts before every text",
            "set ++data.add_bos=true, unless the model was trained without it",
            "data.add_bos",
        )


def _lengths(diagnosis: Diagnosis) -> Iterator[Finding]:
    overlong = diagnosis.config.data.overlong
    for part in _surveys(diagnosis):
        count = int((part.lengths > diagnosis.limit).sum())
        if not count:
            continue
        share = count / len(part.lengths)
        severity = Severity.WARNING if share > MANY_LOST else Severity.NOTE
        done = {"drop": "left out", "truncate": "shortened", "error": "refused"}[overlong]
        yield _finding(
            Severity.ERROR if overlong == "error" else severity,
            f"{count:,} documents ({share:.1%}) are longer than {diagnosis.limit:,} tokens and are {done}",
            _keeping(part, diagnosis),
            _named(part.overlong, count),
        )
    suggested = diagnosis.suggested
    packs = diagnosis.config.policy.sequence_packing.enabled
    if suggested is not None and suggested * _GENEROUS <= diagnosis.limit and not packs:
        yield _finding(
            Severity.NOTE,
            f"the limit of {diagnosis.limit:,} tokens is far above the documents",
            f"set ++policy.max_total_sequence_length={suggested}: less memory is then set aside",
            "policy.max_total_sequence_length",
        )


def _positions(diagnosis: Diagnosis) -> Iterator[Finding]:
    """Documents that go on where the model has no positions."""
    for part in _surveys(diagnosis):
        found = beyond_positions(part.kept, diagnosis.positions)
        if found is not None:
            yield _finding(Severity.WARNING, *found, "policy.max_total_sequence_length")


def _supervision(diagnosis: Diagnosis) -> Iterator[Finding]:
    part = diagnosis.train
    nothing = part.report.dropped.get(NOTHING_TRAINED, 0)
    if nothing:
        yield _finding(
            Severity.WARNING,
            f"{nothing:,} documents have nothing to train and are left out",
            "see whether their answers are empty, or cut off by the limit",
        )
    if part.empty_count:
        yield _finding(
            Severity.WARNING,
            f"rows with an empty answer: {part.empty_count:,}",
            "remove them, unless the model is to say nothing there",
            _named(part.empty, part.empty_count),
        )
    # The first token of a document is never trained, for nothing stands before it.
    whole = int((part.targets >= part.kept - 1).sum())
    if whole > _ALL_TRAINED * len(part.kept):
        yield _finding(
            Severity.WARNING,
            f"all of {whole:,} documents is trained, prompts included",
            "give the prompt apart from the answer, as input and output or as messages",
        )
    few = int((part.targets < _FEW_TRAINED * part.kept).sum())
    if few > _MANY_PROMPTS * len(part.kept):
        yield _finding(
            Severity.NOTE,
            f"less than {_FEW_TRAINED:.0%} of the tokens of {few:,} documents is trained",
            "most of the work goes into prompts; shorten them if they repeat themselves",
        )


def _repeats(diagnosis: Diagnosis) -> Iterator[Finding]:
    part = diagnosis.train
    if part.repeats.rows:
        share = part.repeats.rows / part.report.rows_read
        yield _finding(
            Severity.WARNING if share > _MANY_REPEATED else Severity.NOTE,
            f"{part.repeats.rows:,} rows ({share:.1%}) repeat an earlier row, case and blanks aside",
            "remove them, or they are trained several times in an epoch",
            _pairs(part.repeats.examples),
        )
    if part.repeats.prompts:
        yield _finding(
            Severity.NOTE,
            f"{part.repeats.prompts:,} rows repeat an earlier prompt with another answer",
            "keep them if several answers are wanted",
            _pairs(part.repeats.prompt_examples),
        )


def _validation(diagnosis: Diagnosis) -> Iterator[Finding]:
    if diagnosis.validation is None:
        yield _finding(
            Severity.NOTE,
            "there is no validation data",
            "name some by --validation_data, or set ++data.split_validation_size=0.05: without it nobody sees a "
            "model that learns by heart",
            "data.val_data_path",
        )
        return
    leaked, count = diagnosis.leaked, diagnosis.validation.report.rows_read
    if leaked.rows:
        yield _finding(
            Severity.ERROR,
            f"{leaked.rows:,} of {count:,} validation rows are training rows too",
            "remove them from one of both: the validation loss measures what was learned by heart",
            _pairs(leaked.examples),
        )
    if leaked.prompts:
        yield _finding(
            Severity.WARNING,
            f"{leaked.prompts:,} of {count:,} validation rows have a prompt of the training rows",
            "split by prompt, so that the validation loss is that of new questions",
            _pairs(leaked.prompt_examples),
        )


def _reading(diagnosis: Diagnosis) -> Iterator[Finding]:
    """What the trainer says of it before its first step."""
    for warning in diagnosis.warnings:
        yield _finding(Severity.WARNING, *_what_and_fix(warning))
    for note in diagnosis.notes:
        yield _finding(Severity.NOTE, note, "see docs/datasets.md")


def _what_and_fix(sentence: str) -> tuple[str, str]:
    """The two halves of a warning of the trainer."""
    what, _, fix = sentence.partition(": ")
    return what, fix


def _surveys(diagnosis: Diagnosis) -> list[Survey]:
    return [diagnosis.train, *([diagnosis.validation] if diagnosis.validation else [])]


def _keeping(part: Survey, diagnosis: Diagnosis) -> str:
    """What keeps the documents that are too long, as many as the model has positions for."""
    longest, positions = int(part.lengths.max()), diagnosis.positions
    needed = -(-longest // 64) * 64
    if positions is None or longest <= positions:
        limit = needed if positions is None else min(needed, positions)
        return f"set ++policy.max_total_sequence_length={limit} to keep all {len(part.lengths):,}, or shorten them"
    if positions <= diagnosis.limit:
        return f"shorten them: the model was made for {positions:,} positions"
    kept = int((part.lengths <= positions).sum())
    return (
        f"set ++policy.max_total_sequence_length={positions} to keep {kept:,} of {len(part.lengths):,}, or shorten "
        "them: the model was made for no more positions"
    )


def _named(places: tuple[str, ...], count: int) -> str:
    shown = ", ".join(places[:3])
    return shown + (f" and {count - 3:,} more" if count > 3 else "")


def _pairs(pairs: list[tuple[str, str]]) -> str:
    return ", ".join(f"{row} as {earlier}" for row, earlier in pairs)
