"""What became of the rows of a data set: counts that are shown before training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DataReport:
    """Counts of one data set.

    Attributes:
        rows_read: rows of the source, bad ones included.
        documents: documents kept for training.
        dropped: reason -> rows or documents left out.
        bad_rows: the first of the rows that are left out because they cannot be used, each with its file and line.
        split_documents: documents more than rows, from conversations whose turns the template renders differently
            later on: each such turn is trained in the conversation as the model saw it.
        truncated: documents shortened to the length limit.
        overlong: documents that were longer than the limit, whatever was done to them.
        turns: trained assistant turns; turns_without_stop: those of them that end in no stop token.
        doubled_bos: documents from which a second beginning-of-text token was removed.
        compared: documents that were also tokenised as one text, to see whether the borders of their trained parts
            fall between tokens; differing: those of them that then have other tokens. They are trained with the tokens
            that the model gets when it generates.
        straddling: tokens that reach over a border of what is trained, where a document is tokenised as one text; they
            are trained.
        tokens: tokens of all documents; targets: those of them that are trained.
        length_percentiles: percentile -> document length in tokens, with 50, 90, 99 and 100.
        tokenized_by: which program made the tokens, and why that one.
    """

    rows_read: int = 0
    documents: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    bad_rows: tuple[str, ...] = ()
    split_documents: int = 0
    truncated: int = 0
    overlong: int = 0
    turns: int = 0
    turns_without_stop: int = 0
    doubled_bos: int = 0
    compared: int = 0
    differing: int = 0
    straddling: int = 0
    tokens: int = 0
    targets: int = 0
    length_percentiles: Mapping[int, int] = field(default_factory=dict)
    tokenized_by: str = ""

    @property
    def supervised_ratio(self) -> float:
        """Trained tokens per token, 0 for an empty data set."""
        return self.targets / self.tokens if self.tokens else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain value for a JSON file."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> DataReport:
        """Read back what :meth:`to_json` gave: JSON makes text of the percentiles, and lists of tuples."""
        percentiles = {int(key): length for key, length in value["length_percentiles"].items()}
        bad_rows = tuple(value.get("bad_rows", ()))
        return cls(**{**value, "length_percentiles": percentiles, "bad_rows": bad_rows})

    def warnings(self) -> list[str]:
        """What will most likely spoil the model, as sentences."""
        if self.turns and self.turns_without_stop == self.turns:
            return [
                "no answer ends with a stop token, so the model will not learn to stop: add ++data.add_eos=true, or "
                "++policy.tokenizer.chat_template=default to put input and output rows into the tokenizer's template"
            ]
        return []

    def describe(self) -> list[tuple[str, str]]:
        """Label and value of every line worth showing; counts of nothing are left out."""
        rows = [
            ("rows read", f"{self.rows_read:,}"),
            ("documents", f"{self.documents:,}"),
            *((f"dropped: {reason}", f"{count:,}") for reason, count in self.dropped.items()),
            *(("left out", row) for row in self.bad_rows),
            ("extra documents (turns that the template changes later)", f"{self.split_documents:,}"),
            ("longer than the limit", f"{self.overlong:,}"),
            ("truncated", f"{self.truncated:,}"),
            ("second beginning-of-text token removed", f"{self.doubled_bos:,}"),
            ("assistant turns", f"{self.turns:,}"),
            ("assistant turns without a stop token", f"{self.turns_without_stop:,}"),
            ("other tokens as one text", f"{self.differing:,} of {self.compared:,}" if self.differing else "0"),
            ("trained tokens that begin or end in other text", f"{self.straddling:,}"),
            ("tokens", f"{self.tokens:,}"),
            ("trained tokens", f"{self.targets:,} ({self.supervised_ratio:.1%})"),
        ]
        lengths = ", ".join(f"p{percentile} {length:,}" for percentile, length in self.length_percentiles.items())
        shown = [(label, value) for label, value in rows if value != "0" or label == "documents"]
        shown += [("document length", lengths)] if lengths else []
        return [*shown, ("tokenized by", self.tokenized_by)] if self.tokenized_by else shown
