"""Loss masks: which stretches of a conversation's text the model learns to write.

Trained is what the assistant writes when it is asked: all that follows the generation prompt (the header of its turn),
up to and with the token that ends the turn. An assistant turn is trained only in a text that begins exactly as the
model would have seen it, so a template that renders earlier turns differently later on (Qwen 3 takes their reasoning
out) makes one document per such turn, and no text is ever trained twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from skills_pipe.errors import DataError
from skills_pipe.training.data.rows import Conversation, Pieces, Segment
from skills_pipe.training.data.template import ChatTemplate, Span

_MARK: Final = "\ue000\ue001\ue000"
"""Stands for a content; of private characters, which no template changes and no data has."""


@dataclass(frozen=True, kw_only=True)
class MaskRules:
    """What is trained and how a document begins and ends.

    Attributes:
        bos: beginning-of-text token that each document gets where the template gives none; None: add none.
        eos: end-of-text token that each document gets where the template gives none; None: add none.
        stops: special tokens; one of them ends a turn.
        only_final: train the last turn of a conversation only.
        train_on_header: NeMo-RL's algorithm: each message is tokenised by itself, and all of an assistant message is
            trained, its header too unless ``generation_prompt`` puts that into the message before.
        generation_prompt: only with ``train_on_header``: render the generation prompt after user and tool messages.
    """

    bos: str | None = None
    eos: str | None = None
    stops: tuple[str, ...] = ()
    only_final: bool = False
    train_on_header: bool = False
    generation_prompt: bool = False


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One document to be: its segments in order, its trained turns, and how many of those end in a stop token."""

    segments: tuple[Segment, ...]
    turns: int
    stopped: int

    @property
    def text(self) -> str:
        """The whole document."""
        return "".join(segment.text for segment in self.segments)


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """An assistant turn in the text that ends with it: where its trained part starts and ends."""

    told: str
    start: int
    end: int
    stopped: bool

    @property
    def seen(self) -> str:
        """The text up to and with the trained part."""
        return self.told[: self.end]


def make_samples(conversation: Conversation, template: ChatTemplate, rules: MaskRules) -> list[Sample]:
    """The documents of a conversation: one, unless the template changes its earlier turns.

    Raises:
        DataError: the template refuses the conversation, or what the assistant wrote cannot be told from the rest.
    """
    if rules.train_on_header:
        return [_per_message(conversation, template, rules)]
    if template.marks_answers:
        return [_marked(conversation, template, rules)]
    turns = _turns(conversation, template, rules)
    samples = []
    while turns:
        last = turns[-1]
        together = [last] if rules.only_final else [turn for turn in turns if last.told.startswith(turn.seen)]
        samples.append(
            _sample(last.told, [(t.start, t.end) for t in together], sum(t.stopped for t in together), rules)
        )
        turns = [] if rules.only_final else [turn for turn in turns if turn not in together]
    return samples[::-1]


def sample_of_pieces(pieces: Pieces, rules: MaskRules) -> Sample:
    """The document of a format that says itself what is trained; only its beginning and end may be added to."""
    segments = [segment for segment in pieces.segments if segment.text]
    text = "".join(segment.text for segment in segments)
    ends = tuple(end for end in (rules.eos, pieces.stop) if end)
    if rules.bos and not text.startswith(rules.bos):
        segments.insert(0, Segment(text=rules.bos, trained=False))
    stops = (*rules.stops, pieces.stop) if pieces.stop else rules.stops
    turns = [segment for segment in segments if segment.trained]
    stopped = sum(bool(stops) and segment.text.endswith(stops) for segment in turns)
    if rules.eos and not text.rstrip("\n").endswith(ends):
        if segments and segments[-1].trained:
            stopped += not segments[-1].text.endswith(stops)
            segments[-1] = replace(segments[-1], text=segments[-1].text + rules.eos)
        else:
            # After a turn that is not trained there is nothing that the model should have ended.
            segments.append(Segment(text=rules.eos, trained=False))
    return Sample(segments=tuple(segments), turns=len(turns), stopped=stopped)


def _marked(conversation: Conversation, template: ChatTemplate, rules: MaskRules) -> Sample:
    text, spans = template.render_marked(conversation.messages, conversation.tools)
    if not spans:
        raise DataError("the chat template marks nothing of the row by {% generation %}")
    if rules.only_final:
        spans = spans[-1:]
    return _sample(text, spans, sum(_ends_in_stop(text[start:end], rules) for start, end in spans), rules)


def _turns(conversation: Conversation, template: ChatTemplate, rules: MaskRules) -> list[_Turn]:
    messages, tools = conversation.messages, conversation.tools
    turns = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        told = template.render(messages[: index + 1], tools)
        start = _start(conversation, index, told, template)
        end = _end_of_stop(told, start, rules)
        turns.append(_Turn(told=told, start=start, end=end or len(told), stopped=end is not None))
    return turns


def _start(conversation: Conversation, index: int, told: str, template: ChatTemplate) -> int:
    """Where the trained part of an assistant message starts in ``told``, the text that ends with the message."""
    messages, tools = conversation.messages, conversation.tools
    asked = template.has_generation_prompt and index > 0
    seen = template.render(messages[:index], tools, prompt=asked) if index else ""
    if not asked:
        seen += _header(conversation, index, seen, template)
    if not told.startswith(seen):
        raise DataError(
            f"message {index + 1} does not follow in the chat template's text from what the model sees before it",
            fix="mark the answers in the template by {% generation %}, or use another template",
        )
    return len(seen)


def _header(conversation: Conversation, index: int, seen: str, template: ChatTemplate) -> str:
    """What stands between ``seen`` and the content of an assistant message, for want of a generation prompt.

    Found by putting a mark in place of the content. Blanks alone are no header: the assistant writes them.
    """
    marked = [*conversation.messages[:index], {**conversation.messages[index], "content": _MARK}]
    header, mark, _ = template.render(marked, conversation.tools).removeprefix(seen).partition(_MARK)
    if header.strip() and not mark:
        raise DataError(
            f"the chat template has no generation prompt and leaves out the content of message {index + 1}",
            fix="mark the answers in the template by {% generation %}, or use another template",
        )
    return header if header.strip() else ""


def _end_of_stop(told: str, start: int, rules: MaskRules) -> int | None:
    """End of the stop token that ends the turn; None when blanks at most follow something else."""
    end = len(told.rstrip())
    return end if end > start and _ends_in_stop(told[start:end], rules) else None


def _ends_in_stop(text: str, rules: MaskRules) -> bool:
    return text.rstrip().endswith(rules.stops) if rules.stops else False


def _sample(text: str, spans: Sequence[Span], stopped: int, rules: MaskRules) -> Sample:
    """Cut a text at the ends of its trained spans, in order, and see to its beginning and end."""
    segments = []
    position = 0
    for start, end in spans:
        segments.append(Segment(text=text[position:start], trained=False))
        segments.append(Segment(text=text[start:end], trained=True))
        position = end
    segments.append(Segment(text=text[position:], trained=False))
    ended = rules.eos is None or text.rstrip("\n").endswith(rules.eos)
    last_was_open = bool(spans) and not _ends_in_stop(text[slice(*spans[-1])], rules)
    return Sample(
        segments=_with_ends(segments, rules, ended=ended),
        turns=len(spans),
        stopped=stopped + (not ended and last_was_open),
    )


def _per_message(conversation: Conversation, template: ChatTemplate, rules: MaskRules) -> Sample:
    """NeMo-RL's segments: what each message adds to the text of the messages before it."""
    messages, tools = conversation.messages, conversation.tools
    segments = []
    before = ""
    for index, message in enumerate(messages):
        prompt = rules.generation_prompt and message["role"] in ("user", "tool")
        text = template.render(messages[: index + 1], tools, prompt=prompt)
        added = text[_common_length(before, text) :]
        trained = message["role"] == "assistant" if not rules.only_final else index == len(messages) - 1
        segments.append(Segment(text=added, trained=trained))
        before = text
    if "".join(segment.text for segment in segments) != before:
        raise DataError(
            "the chat template changes earlier messages later on, so they cannot be tokenised one by one",
            fix="set data.train_on_header=false",
        )
    ended = rules.eos is None or segments[-1].text.rstrip("\n").endswith(rules.eos)
    turns = [segment for segment in segments if segment.trained]
    stopped = sum(_ends_in_stop(segment.text, rules) for segment in turns)
    if not ended and not _ends_in_stop(segments[-1].text, rules):
        stopped += 1
    return Sample(segments=_with_ends(segments, rules, ended=ended), turns=len(turns), stopped=stopped)


def _common_length(one: str, other: str) -> int:
    """Number of characters that two texts have in common at their start."""
    if other.startswith(one):
        return len(one)
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(other))


def _with_ends(segments: list[Segment], rules: MaskRules, *, ended: bool) -> tuple[Segment, ...]:
    """Add the beginning-of-text token where it is missing, and the end-of-text token unless ``ended``."""
    kept = [segment for segment in segments if segment.text]
    if rules.bos and not "".join(segment.text for segment in kept).startswith(rules.bos):
        first = kept.pop(0) if kept else Segment(text="", trained=False)
        kept.insert(0, Segment(text=rules.bos + first.text, trained=first.trained))
    if rules.eos and not ended:
        last = kept.pop() if kept and kept[-1].trained else Segment(text="", trained=True)
        kept.append(Segment(text=last.text + rules.eos, trained=True))
    return tuple(kept)
