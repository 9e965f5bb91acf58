"""The chat format of NeMo-Aligner: turns of named speakers, with labels before or after their text.

::

    {"system": "...", "conversations": [{"from": "User", "value": "..."}, {"from": "Assistant", "value": "...",
     "label": "quality:4"}], "mask": "User", "type": "VALUE_TO_TEXT"}

The text is the system turn, then for each turn its start token, the speaker, the value and the end of the turn; a
label stands before the value (``VALUE_TO_TEXT``: the model answers to a label) or after it (``TEXT_TO_VALUE``: the
model labels the text). Trained is what speakers other than ``mask`` say, and the start token of the turn after theirs,
which is how the model learns to stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from skills_pipe.training.config.schema.data import ChatTokens
from skills_pipe.training.data.rows import BadRow, Pieces, Row, Segment
from skills_pipe.training.data.sources.conversations import Conversations

_TYPES: Final = (None, "VALUE_TO_TEXT", "TEXT_TO_VALUE")


@dataclass(frozen=True, kw_only=True)
class AlignerChat:
    """Rows of that format; rows of messages among them are read as such.

    Attributes:
        tokens: what stands between the parts of a chat.
        messages: how rows without ``conversations`` are read.
    """

    tokens: ChatTokens = field(default_factory=ChatTokens)
    messages: Conversations = field(default_factory=Conversations)

    def rows(self, value: Any, where: str) -> Iterator[Row]:
        """The text of a row, cut where training begins and ends."""
        if isinstance(value, Mapping) and "conversations" not in value and self.messages.chat_key in value:
            yield from self.messages.rows(value, where)
            return
        fault = _fault(value)
        if fault:
            yield BadRow(where=where, what=fault)
            return
        turns = value["conversations"]
        segments = [Segment(text=self._header(value.get("system") or ""), trained=False)]
        for index in range(len(turns)):
            segments += self._turn(value, index)
        if turns[-1]["from"] != _masked(value):
            segments.append(Segment(text=self.tokens.turn_start, trained=True))
        yield Pieces(segments=tuple(_joined(segments)), where=where, stop=self.tokens.turn_start)

    def _header(self, system: str) -> str:
        return f"{self.tokens.system_turn_start}System{self.tokens.end_of_name}{system}{self.tokens.end_of_turn}"

    def _turn(self, row: Mapping[str, Any], index: int) -> list[Segment]:
        turn, kind = row["conversations"][index], row.get("type")
        name, text, label = self._texts(turn, kind)
        first_kind = kind in (None, "VALUE_TO_TEXT")
        if index == 0 and first_kind:
            # The first turn is the context that the model needs at least, whoever speaks.
            return [Segment(text=name + text + label, trained=False)]
        if turn["from"] == _masked(row):
            # Its start token ends what was said before; up to the second turn there is nothing to end, unless the
            # label of the first one was learned.
            ends = index > 1 or (index == 1 and not first_kind)
            start = self.tokens.turn_start
            return [
                Segment(text=start, trained=ends),
                Segment(text=(name + text + label)[len(start) :], trained=False),
            ]
        if kind == "TEXT_TO_VALUE" and label:
            start = self.tokens.label_start
            return [
                Segment(text=name + text + start, trained=False),
                Segment(text=label[len(start) :], trained=True),
            ]
        return [Segment(text=name, trained=False), Segment(text=text, trained=True)]

    def _texts(self, turn: Mapping[str, Any], kind: str | None) -> tuple[str, str, str]:
        """The name of a turn with a label before its text, the text, and a label after it."""
        tokens = self.tokens
        name = f"{tokens.turn_start}{turn['from']}{tokens.end_of_name}"
        text = f"{turn['value']}{tokens.end_of_turn}"
        label = "" if turn.get("label") is None else f"{tokens.label_start}{turn['label']}{tokens.end_of_name}"
        if kind == "VALUE_TO_TEXT":
            return name + label, text, ""
        return name, text, label if kind == "TEXT_TO_VALUE" else ""


def _masked(row: Mapping[str, Any]) -> str:
    return row.get("mask") or "User"


def _joined(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Neighbours that are both trained, or both not, as one: tokens may then reach over the border between them."""
    held: Segment | None = None
    for segment in segments:
        if held is not None and held.trained == segment.trained:
            held = Segment(text=held.text + segment.text, trained=held.trained)
            continue
        if held is not None and held.text:
            yield held
        held = segment
    if held is not None and held.text:
        yield held


def _fault(row: Any) -> str | None:
    if not isinstance(row, Mapping):
        return "not a JSON object"
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        return "'conversations' is not a list of one turn or more"
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, Mapping) or not all(isinstance(turn.get(key), str) for key in ("from", "value")):
            return f"turn {number} has no 'from' and 'value' of text"
        if not isinstance(turn.get("label"), (str, type(None))):
            return f"the label of turn {number} is {type(turn['label']).__name__}, not text"
    if not isinstance(row.get("system"), (str, type(None))):
        return f"'system' is {type(row['system']).__name__}, not text"
    if row.get("type") not in _TYPES:
        return f"the type {row['type']!r} is neither VALUE_TO_TEXT nor TEXT_TO_VALUE"
    if _masked(row) not in {turn["from"] for turn in turns}:
        return f"no turn is from {_masked(row)!r}, whose turns are not to be trained ('mask')"
    return None
