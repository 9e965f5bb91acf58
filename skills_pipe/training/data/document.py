"""A document to be: its stretches of text, which of them are trained, and how it begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from skills_pipe.training.data.rows import Segment
from skills_pipe.training.data.template import Span

Tokenize = Literal["segments", "whole"]
"""Whether trained and other stretches are tokenised each by itself or as one text."""

WeightedSpan: TypeAlias = tuple[Span, float]
"""A stretch of text that the assistant wrote, and the weight of its loss; 0: it is not trained."""


@dataclass(frozen=True, kw_only=True)
class MaskRules:
    """What is trained and how a document begins and ends.

    Attributes:
        bos: beginning-of-text token that each document gets where the template gives none; None: add none.
        eos: end-of-text token that each document gets where the template gives none; None: add none.
        stops: special tokens; one of them ends a turn.
        only_final: train the last turn of a conversation only.
        answers_only: train what the assistant writes; False: all of the text.
        tokenize: see :data:`Tokenize`; None: as one text where the template marks answers by ``{% generation %}``, as
            Hugging Face does, else by segments.
        train_on_header: NeMo-RL's algorithm: each message is tokenised by itself, and all of an assistant message is
            trained, its header too unless ``generation_prompt`` puts that into the message before.
        generation_prompt: only with ``train_on_header``: render the generation prompt after user and tool messages.
    """

    bos: str | None = None
    eos: str | None = None
    stops: tuple[str, ...] = ()
    only_final: bool = False
    answers_only: bool = True
    tokenize: Tokenize | None = None
    train_on_header: bool = False
    generation_prompt: bool = False

    def ends_turn(self, text: str) -> bool:
        """Whether ``text`` ends in a stop token, blanks after it aside."""
        return text.rstrip().endswith(self.stops) if self.stops else False


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One document to be.

    Attributes:
        segments: its text, in order.
        turns: how many turns in it are trained.
        stopped: how many of those end in a stop token.
        tokenize: see :data:`Tokenize`.
        stop: text by which turns end too, besides the stop tokens.
    """

    segments: tuple[Segment, ...]
    turns: int
    stopped: int
    tokenize: Tokenize = "segments"
    stop: str | None = None

    @property
    def text(self) -> str:
        """The whole document."""
        return "".join(segment.text for segment in self.segments)


def cut_into_sample(text: str, answers: Sequence[WeightedSpan], rules: MaskRules, tokenize: Tokenize) -> Sample:
    """Cut a text at the ends of what the assistant wrote, in order, and see to its beginning and end."""
    segments = []
    position = 0
    for (start, end), weight in answers:
        segments.append(Segment(text=text[position:start], trained=False))
        segments.append(Segment(text=text[start:end], trained=weight > 0, weight=weight or 1.0))
        position = end
    segments.append(Segment(text=text[position:], trained=False))
    ended = has_end(text, rules)
    trained = [text[start:end] for (start, end), weight in answers if weight > 0]
    last_weight = answers[-1][1] if answers else 1.0
    closed_by_eos = not ended and last_weight > 0 and bool(trained) and not rules.ends_turn(trained[-1])
    return Sample(
        segments=with_ends(segments, rules, ended=ended, end_weight=last_weight),
        turns=len(trained),
        stopped=sum(rules.ends_turn(part) for part in trained) + closed_by_eos,
        tokenize=tokenize,
    )


def has_end(text: str, rules: MaskRules) -> bool:
    """Whether nothing has to be added to the end of ``text``."""
    return rules.eos is None or text.rstrip("\n").endswith(rules.eos)


def with_ends(
    segments: Sequence[Segment], rules: MaskRules, *, ended: bool, end_weight: float = 1.0
) -> tuple[Segment, ...]:
    """Add the beginning-of-text token where it is missing, and the end-of-text token unless ``ended``.

    Args:
        segments: a document's text.
        rules: name the two tokens.
        ended: see :func:`has_end`.
        end_weight: weight of the turn that the end-of-text token ends; 0: it is not trained either.
    """
    kept = [segment for segment in segments if segment.text]
    if rules.bos and not "".join(segment.text for segment in kept).startswith(rules.bos):
        first = kept.pop(0) if kept else Segment(text="", trained=False)
        kept.insert(0, replace(first, text=rules.bos + first.text))
    if rules.eos and not ended:
        trained = end_weight > 0
        end = Segment(text="", trained=trained, weight=end_weight or 1.0)
        last = kept.pop() if kept and kept[-1].trained == trained else end
        kept.append(replace(last, text=last.text + rules.eos))
    return tuple(kept)
