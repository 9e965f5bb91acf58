"""A chat template that is run once for each kind of conversation, and from then on only filled in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

import jinja2
from transformers.utils import chat_template_utils

from skills_pipe.training.data.template import REFUSALS, ChatTemplate, Span
from skills_pipe.training.data.tracing.environment import TracingEnvironment
from skills_pipe.training.data.tracing.symbol import Contents, Run, Symbol, Unknown, Untraceable
from skills_pipe.training.data.tracing.trace import Step, Written, follow, grown

Kind: TypeAlias = tuple[Any, ...]
"""All of a conversation that a template can see, but for the contents of its messages."""

_MOST: Final = 4096
"""Traces tried of a template. One that would need more asks the contents so much that they are of no use."""


class QuickTemplate:
    """Gives what a :class:`ChatTemplate` gives, sooner.

    The first conversation of its kind is rendered by Jinja, and then once more with unknown texts in place of its
    contents. What comes out says for any contents of that kind what the template writes, or that it asks them
    something that has not been answered so before; then Jinja renders that row too. Where a template does with contents
    what cannot be followed, Jinja renders all conversations of the kind. Only conversations of roles and texts are
    traced, with tools or without; others have too many kinds.

    Attributes:
        filled_in: texts that were told without Jinja.
        rendered: texts by Jinja.
        misread: kinds of which the trace was not what Jinja gave; there is no such template known.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._for_tools = self if template.tool_text is None else QuickTemplate(template.chosen(()))
        self._traced = _compiled(template)
        self._steps: dict[Kind, Step] = {}
        self._untraceable: set[Kind] = set()
        self._left = _MOST
        self.marks_answers = template.marks_answers
        self.has_generation_prompt = template.has_generation_prompt
        self.filled_in = 0
        self.rendered = 0
        self.misread = 0

    def chosen(self, tools: Sequence[Any] | None) -> QuickTemplate:
        """See :meth:`ChatTemplate.chosen`."""
        return self if tools is None else self._for_tools

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, *, prompt: bool = False
    ) -> str:
        """See :meth:`ChatTemplate.render`."""
        kind, contents = _kind(messages, tools, prompt=prompt)
        written = follow(self._steps.get(kind), contents) if kind else None
        if written is not None:
            self.filled_in += 1
            return written.text(contents)
        text = self._template.render(messages, tools, prompt=prompt)
        self._learn(kind, contents, (messages, tools, prompt), (text, None))
        return text

    def render_marked(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
    ) -> tuple[str, list[Span]]:
        """See :meth:`ChatTemplate.render_marked`."""
        kind, contents = _kind(messages, tools, prompt=False)
        written = follow(self._steps.get(kind), contents) if kind else None
        if written is not None:
            self.filled_in += 1
            return written.marked(contents)
        text, spans = self._template.render_marked(messages, tools)
        self._learn(kind, contents, (messages, tools, False), (text, spans))
        return text, spans

    def _learn(
        self,
        kind: Kind,
        contents: Contents,
        asked: tuple[Sequence[Mapping[str, Any]], Sequence[Any] | None, bool],
        rendered: tuple[str, list[Span] | None],
    ) -> None:
        """Trace a conversation that Jinja has rendered."""
        self.rendered += 1
        if not kind or self._traced is None or not self._left or kind in self._untraceable:
            return
        environment, template = self._traced
        run = Run(contents=contents)
        environment.start(run)
        messages, tools, prompt = asked
        unknown = [
            {**message, "content": Symbol(run, (Unknown(("content", at), itemgetter(at)),))}
            for at, message in enumerate(messages)
        ]
        context = template.new_context(
            {
                "messages": unknown,
                "tools": list(tools) if tools is not None else None,
                "documents": None,
                "add_generation_prompt": prompt,
                **self._template.variables,
            }
        )
        try:
            environment.writes.extend(template.root_render_func(context))
            written = Written.of(environment.writes, environment.marks)
            step = grown(self._steps.get(kind), list(run.questions.values()), written)
        except (Untraceable, *REFUSALS):
            self._give_up(kind)
            return
        text, spans = rendered
        traced_text, traced_spans = written.marked(contents)
        if run.refused or traced_text != text or spans not in (None, traced_spans):
            self.misread += not run.refused
            self._give_up(kind)
            return
        self._left -= 1
        self._steps[kind] = step

    def _give_up(self, kind: Kind) -> None:
        # These are remembered too, and rows that have tools of their own make a kind each.
        self._left -= 1
        self._untraceable.add(kind)
        self._steps.pop(kind, None)


_UNKNOWN_KIND: Final[tuple[Kind, Contents]] = ((), ())


def _kind(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, *, prompt: bool) -> tuple[Kind, Contents]:
    """The kind of a conversation and its contents; an empty kind where it is not traced."""
    roles, contents = [], []
    for message in messages:
        content, role = message.get("content"), message.get("role")
        if type(content) is not str or type(role) is not str or len(message) != 2:
            return _UNKNOWN_KIND
        roles.append(role)
        contents.append(content)
    return (prompt, None if tools is None else repr(tools), *roles), contents


def _compiled(template: ChatTemplate) -> tuple[TracingEnvironment, jinja2.Template] | None:
    """The template in an environment that traces; None where it cannot be traced."""
    if not _is_plain(dict(template.variables)):
        return None
    try:
        # What transformers renders with: its filters and functions are the ones to follow.
        original = chat_template_utils._compile_jinja_template(template.text).environment
        environment = TracingEnvironment(original)
        return environment, environment.from_string(template.text)
    except Untraceable:
        return None


def _is_plain(value: Any) -> bool:
    """Whether a value is one of JSON."""
    if type(value) is dict:
        return all(type(key) is str and _is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(map(_is_plain, value))
    return value is None or type(value) in (str, int, float, bool)
