"""Loss masks: which stretches of a conversation's text the model learns to write.

Trained is what the assistant writes when it is asked: all that follows the generation prompt (the header of its turn),
up to and with the token that ends the turn. An assistant turn is trained only in a text that begins exactly as the
model would have seen it, so a template that renders earlier turns differently later on (Qwen 3 takes their reasoning
out) makes one document per such turn, and no text is ever trained twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from skills_pipe.errors import DataError
from skills_pipe.training.data.document import MaskRules, Sample, WeightedSpan, cut_into_sample
from skills_pipe.training.data.per_message import per_message
from skills_pipe.training.data.rows import Conversation, Pieces, Segment
from skills_pipe.training.data.template import Template
from skills_pipe.training.data.train_flags import message_weights, without_flags
from skills_pipe.training.data.turns import Turn, find_turns

__all__ = ["MaskRules", "Sample", "make_samples", "sample_of_pieces"]


def make_samples(conversation: Conversation, template: Template, rules: MaskRules) -> list[Sample]:
    """The documents of a conversation: one, unless the template changes its earlier turns.

    Raises:
        DataError: the template refuses the conversation, or what the assistant wrote cannot be told from the rest.
    """
    weights = message_weights(conversation) if rules.answers_only else [1.0] * len(conversation.messages)
    conversation = without_flags(conversation)
    template = template.chosen(conversation.tools)
    if rules.train_on_header:
        return [per_message(conversation, weights, template, rules)]
    if not rules.answers_only:
        text = template.render(conversation.messages, conversation.tools)
        return [cut_into_sample(text, [((0, len(text)), 1.0)], rules, rules.tokenize or "segments")]
    if template.marks_answers:
        return [_marked(conversation, weights, template, rules)]
    return _by_structure(find_turns(conversation, weights, template, rules), rules)


def _marked(conversation: Conversation, weights: Sequence[float], template: Template, rules: MaskRules) -> Sample:
    text, spans = template.render_marked(conversation.messages, conversation.tools)
    if not spans:
        raise DataError("the chat template marks nothing of the row by {% generation %}")
    answers = [(span, 1.0) for span in spans]
    roles = [message["role"] for message in conversation.messages]
    of_turns = [weight for role, weight in zip(roles, weights, strict=True) if role == "assistant"]
    if any(weight != 1 for weight in of_turns):
        if len(of_turns) != len(spans):
            raise DataError(
                f"messages have weights, and the chat template marks {len(spans)} stretches of text for the "
                f"{len(of_turns)} messages of the assistant",
                fix="mark each message by one {% generation %}, or use a template without such marks",
            )
        answers = list(zip(spans, of_turns, strict=True))
    if rules.only_final:
        answers = answers[-1:]
    return cut_into_sample(text, answers, rules, rules.tokenize or "whole")


def _by_structure(turns: Sequence[Turn], rules: MaskRules) -> list[Sample]:
    """The last turn with all turns that its text still shows as they were; then the same for the turns that are left.

    Documents without a trained turn are left out, unless there is no other.
    """
    documents: list[tuple[str, list[WeightedSpan]]] = []
    left = list(turns)
    while left:
        last = left[-1]
        together = [last] if rules.only_final else [turn for turn in left if last.told.startswith(turn.seen)]
        documents.insert(0, (last.told, [((turn.start, turn.end), turn.weight) for turn in together]))
        left = [] if rules.only_final else [turn for turn in left if turn not in together]
    trained = [document for document in documents if any(weight > 0 for _, weight in document[1])]
    tokenize = rules.tokenize or "segments"
    return [cut_into_sample(text, answers, rules, tokenize) for text, answers in trained or documents[-1:]]


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
    if not rules.answers_only:
        segments = [replace(segment, trained=True, weight=1.0) for segment in segments]
    return Sample(segments=tuple(segments), turns=len(turns), stopped=stopped, stop=pieces.stop)
