"""Chat templates: which one is used, and the text it makes of messages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import jinja2
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from skills_pipe.artifacts.rows import Form
from skills_pipe.errors import DataError, did_you_mean

PASSTHROUGH: Final = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""The contents one after the other: for rows whose text already holds its template."""

DEFAULT: Final = "default"
INFER: Final = "infer_from_data"

_WHERE: Final = "policy.tokenizer.chat_template"
_GENERATION: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")

_REFUSALS: Final = (
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


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A Jinja chat template with all that it needs besides messages and tools.

    Attributes:
        text: the template.
        variables: names for the template: special tokens and the user's ``chat_template_kwargs``.
        form: the only form that rows may have, None for any.
    """

    text: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    form: Form | None = None

    @property
    def marks_answers(self) -> bool:
        """Whether the template says itself what the assistant wrote, by ``{% generation %}``."""
        return _GENERATION.search(self.text) is not None

    @property
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
                chat_template=self.text,
                return_assistant_tokens_mask=mark,
                add_generation_prompt=prompt,
                **self.variables,
            )
        except _REFUSALS as error:
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
        if form == "both":
            raise DataError(
                "the first row has messages and input/output: the chat template cannot be inferred",
                where=_WHERE,
                fix="set it to null or 'default'",
            )
        only = form
        setting = None if form == "pair" else DEFAULT
    text = _template_text(setting, tokenizer)
    _check_syntax(text)
    return ChatTemplate(text=text, variables={**tokenizer.special_tokens_map, **(kwargs or {})}, form=only)


def _template_text(setting: str | None, tokenizer: PreTrainedTokenizerBase) -> str:
    if setting is None:
        return PASSTHROUGH
    if setting.lower() == DEFAULT:
        if not tokenizer.chat_template:
            raise DataError(
                "the tokenizer has no chat template of its own",
                where=_WHERE,
                fix="set it to null for rows that hold their template already, or give a template",
            )
        return tokenizer.get_chat_template()
    if setting.endswith(".jinja"):
        try:
            return Path(setting).read_text(encoding="utf-8")
        except OSError as error:
            raise DataError(f"cannot read {setting}: {error.strerror}", where=_WHERE) from error
    if "{{" not in setting and "{%" not in setting:
        raise DataError(
            f"{setting!r} is no chat template",
            where=_WHERE,
            fix=did_you_mean(setting, (DEFAULT, INFER)) or "give null, 'default', a .jinja file or the template itself",
        )
    return setting


def _check_syntax(text: str) -> None:
    try:
        render_jinja_template([], chat_template=text)
    except jinja2.TemplateSyntaxError as error:
        raise DataError(
            f"the chat template is not Jinja: {error.message}, line {error.lineno}", where=_WHERE
        ) from error
