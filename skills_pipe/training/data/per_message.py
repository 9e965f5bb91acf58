"""NeMo RL's way to a document: each message is tokenised by itself, and assistant messages are trained as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from skills_pipe.errors import DataError
from skills_pipe.training.data.document import MaskRules, Sample, has_end, with_ends
from skills_pipe.training.data.rows import Conversation, Segment
from skills_pipe.training.data.template import Template


def per_message(conversation: Conversation, weights: Sequence[float], template: Template, rules: MaskRules) -> Sample:
    """The document whose segments are what each message adds to the text of the messages before it.

    Raises:
        DataError: the template changes earlier messages later on; NeMo RL would train some of the text twice.
    """
    messages, tools = conversation.messages, conversation.tools
    segments = []
    before = ""
    for index, message in enumerate(messages):
        prompt = rules.generation_prompt and message["role"] in ("user", "tool")
        text = template.render(messages[: index + 1], tools, prompt=prompt)
        added = text[_common_length(before, text) :]
        weight = _final_weight(conversation, weights, index) if rules.only_final else weights[index]
        segments.append(Segment(text=added, trained=weight > 0, weight=weight or 1.0))
        before = text
    if "".join(segment.text for segment in segments) != before:
        raise DataError(
            "the chat template changes earlier messages later on, so they cannot be tokenised one by one",
            fix="set data.train_on_header=false",
        )
    last = segments[-1]
    ended = has_end(last.text, rules)
    turns = [segment for segment in segments if segment.trained]
    closed_by_eos = not ended and last.trained and not rules.ends_turn(last.text)
    return Sample(
        segments=with_ends(segments, rules, ended=ended, end_weight=last.weight if last.trained else 0.0),
        turns=len(turns),
        stopped=sum(rules.ends_turn(segment.text) for segment in turns) + closed_by_eos,
    )


def _final_weight(conversation: Conversation, weights: Sequence[float], index: int) -> float:
    """The last message is trained whoever wrote it, and no other."""
    if index < len(conversation.messages) - 1:
        return 0.0
    return weights[index] if conversation.messages[index]["role"] == "assistant" else 1.0


def _common_length(one: str, other: str) -> int:
    """Number of characters that two texts have in common at their start."""
    if other.startswith(one):
        return len(one)
    return next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(other))
