"""Chat templates: which one is used, and the text it makes of messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from skills_pipe.artifacts.rows import Form
from skills_pipe.errors import DataError, did_you_mean
from skills_pipe.training.config.rules.kinds import settles_nothing

PASSTHROUGH: Final = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The contents one after the other: for rows whose text already holds its template."""

DEFAULT: Final = "default"
INFER: Final = "infer_from_data"
_FOR_TOOLS: Final = "tool_use"
"""Name of the template that transformers takes for rows with tools, where a tokenizer has several."""

_WHERE: Final = "policy.tokenizer.chat_template"
_GENERATION: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")

REFUSALS: Final = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)
"""Templates run any expression on the user's messages, in a sandbox: these are the ways in which that can fail."""

Span = tuple[int, int]
"""Start and end of a stretch of text, in characters."""


class Template(Protocol):
    """What makes one text of a conversation: a :class:`ChatTemplate`, or something that gives the same."""

    @property
    def marks_answers(self) -> bool:
        """Whether it says itself what the assistant wrote."""
        ...

    @property
    def has_generation_prompt(self) -> bool:
        """Whether it can end where the assistant begins to write."""
        ...

    def chosen(self, tools: Sequence[Any] | None) -> Template:
        """The template of a row with these tools."""
        ...

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, *, prompt: bool = False
    ) -> str:
        """The text of a conversation."""
        ...

    def render_marked(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
    ) -> tuple[str, list[Span]]:
        """The same with the spans that it marks."""
        ...


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A Jinja chat template with all that it needs besides messages and tools.

    Attributes:
        text: the template.
        variables: names for the template: special tokens and the user's ``chat_template_kwargs``.
        form: the only form that rows may have, None for any.
        tool_text: the template of rows with tools, None where there is no other for them.
    """

    text: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    form: Form | None = None
    tool_text: str | None = None

    def chosen(self, tools: Sequence[Any] | None) -> ChatTemplate:
        """The template of a row with these tools; as for transformers, an empty list of them counts as tools."""
        return self if tools is None or self.tool_text is None else replace(self, text=self.tool_text, tool_text=None)

    def for_tokenizer(self) -> str | dict[str, str]:
        """What a tokenizer keeps as its ``chat_template``."""
        return self.text if self.tool_text is None else {DEFAULT: self.text, _FOR_TOOLS: self.tool_text}

    @cached_property
    def marks_answers(self) -> bool:
        """Whether the template says itself what the assistant wrote, by ``{% generation %}``."""
        return _GENERATION.search(self.text) is not None

    @cached_property
    def has_generation_prompt(self) -> bool:
        """Whether the template can end where the assistant begins to write."""
        return "add_generation_prompt" in self.text

    def render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, *, prompt: bool = False
    ) -> str:
        """Text of a conversation; ``prompt`` adds what stands before an answer of the assistant.

        Raises:
            DataError: the template refuses the messages.
        """
        return self._render(messages, tools, prompt=prompt, mark=False)[0]

    def render_marked(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None
    ) -> tuple[str, list[Span]]:
        """Text of a conversation and the spans that the template marks by ``{% generation %}``."""
        return self._render(messages, tools, prompt=False, mark=True)

    def _render(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, *, prompt: bool, mark: bool
    ) -> tuple[str, list[Span]]:
        # As transformers does: templates test for missing keys, not for null ones.
        present = [{key: value for key, value in message.items() if value is not None} for message in messages]
        try:
            rendered: Any = render_jinja_template(
                [present],
                tools=list(tools) if tools is not None else None,
                chat_template=self.chosen(tools).text,
                return_assistant_tokens_mask=mark,
                add_generation_prompt=prompt,
                **self.variables,
            )
        except REFUSALS as error:
            raise DataError(f"the chat template refuses the row: {error}") from error
        texts, spans = rendered
        return texts[0], list(spans[0]) if mark else []


def resolve_template(
    setting: str | None, tokenizer: PreTrainedTokenizerBase, kwargs: Mapping[str, Any] | None, form: Form | None
) -> ChatTemplate:
    """The chat template that a configuration asks for.

    Args:
        setting: ``default`` (the tokenizer's own), None (:data:`PASSTHROUGH`), ``infer_from_data`` (passthrough for
            input/output rows, the tokenizer's own for messages), a path ending in ``.jinja``, or the template itself.
        tokenizer: source of the default and of the special tokens' names.
        kwargs: ``chat_template_kwargs``.
        form: form of the first row, None without rows.

    Raises:
        DataError: the template is missing, cannot be read or is not Jinja; or the rows do not settle which one to use.
    """
    only: Form | None = None
    if setting is not None and setting.lower() == INFER:
        problem = settles_nothing(form)
        if problem is not None:
            raise problem
        only = form
        setting = None if form == "pair" else DEFAULT
    text, tool_text = _template_texts(setting, tokenizer)
    _check_syntax(text)
    if tool_text is not None:
        _check_syntax(tool_text)
    variables = {**tokenizer.special_tokens_map, **(kwargs or {})}
    return ChatTemplate(text=text, variables=variables, form=only, tool_text=tool_text)


def _template_texts(setting: str | None, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str | None]:
    """The template, and the one for rows with tools where that is another."""
    named: Mapping[str, str] = tokenizer.chat_template if isinstance(tokenizer.chat_template, Mapping) else {}
    if setting is None:
        return PASSTHROUGH, None
    if setting in named and (setting != DEFAULT or _FOR_TOOLS not in named):
        return named[setting], None
    if setting.lower() == DEFAULT:
        return _of_tokenizer(tokenizer, named)
    if setting.endswith(".jinja"):
        try:
            return Path(setting).read_text(encoding="utf-8"), None
        except OSError as error:
            raise DataError(f"cannot read {setting}: {error.strerror}", where=_WHERE) from error
    if "{{" not in setting and "{%" not in setting:
        names = (DEFAULT, INFER, *named)
        raise DataError(
            f"{setting!r} is no chat template",
            where=_WHERE,
            fix=did_you_mean(setting, names)
            or "give null, 'default', a .jinja file or the template itself"
            + (f", or one of the tokenizer's: {', '.join(sorted(named))}" if named else ""),
        )
    return setting, None


def _of_tokenizer(tokenizer: PreTrainedTokenizerBase, named: Mapping[str, str]) -> tuple[str, str | None]:
    """The tokenizer's own template: of several named ones those that transformers takes."""
    if named and DEFAULT not in named:
        raise DataError(
            f"the tokenizer has several chat templates and no default: {', '.join(sorted(named))}",
            where=_WHERE,
            fix="set it to one of these names",
        )
    if not tokenizer.chat_template:
        raise DataError(
            "the tokenizer has no chat template of its own",
            where=_WHERE,
            fix="set it to null for rows that hold their template already, or give a template",
        )
    return tokenizer.get_chat_template(), named.get(_FOR_TOOLS)


def _check_syntax(text: str) -> None:
    try:
        render_jinja_template([], chat_template=text)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"the chat template is not Jinja: {error.message}, line {error.lineno}", where=_WHERE
        ) from error
