"""Text as a tokenizer's chat template writes it, and lengths as the tokenizer counts them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skills_pipe.errors import ConfigError, DataError, OptionError, first_line

Message = dict[str, str]

_LOG = logging.getLogger(__name__)

_PROBE = "a probe that no template changes"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What the assistant says in one row.

    Attributes:
        content: the answer.
        thinking: the reasoning before the answer, which the template sets apart; None without any.
        complete: whether the generation came to its end; if not, the turn is not closed.
    """

    content: str
    thinking: str | None = None
    complete: bool = True


class ChatFormat:
    """Writes prompts and answers by the chat template of a tokenizer.

    A tokenizer without a template belongs to a base model: a prompt is then the start token and the user's text,
    an answer its text and the end token.

    Args:
        tokenizer: folder or name of a Hugging Face tokenizer.
        template_kwargs: further values for the template, such as ``enable_thinking``.
    """

    def __init__(self, tokenizer: str, template_kwargs: Mapping[str, Any] | None = None) -> None:
        self._tokenizer = load_tokenizer(tokenizer)
        self._name = tokenizer
        self._kwargs = dict(template_kwargs or {})
        self.has_template = self._tokenizer.chat_template is not None
        if self._kwargs and not self.has_template:
            raise ConfigError(
                f"{tokenizer} has no chat template that could use chat_template_kwargs", where="chat_template_kwargs"
            )
        if not self.has_template:
            _LOG.warning("%s has no chat template: prompts get its start token, answers its end token", tokenizer)
        else:
            self._opening = self._render([[_user("")]], add_generation_prompt=True)[0]
            self._header, self._closing = self._frame()

    def prompts(self, conversations: Sequence[list[Message]]) -> list[str]:
        """Conversations up to the point where the assistant speaks."""
        if self.has_template:
            return self._render(conversations, add_generation_prompt=True)
        return [self._base_prompt(messages) for messages in conversations]

    def answers(self, turns: Sequence[Turn]) -> list[str]:
        """What follows the prompt: the assistant's turns, closed where they are complete."""
        if not self.has_template:
            return [self._base_answer(turn) for turn in turns]
        conversations = [[_user(""), _assistant(turn)] for turn in turns]
        texts = self._render(conversations, add_generation_prompt=False)
        return [self._answer(text, turn) for text, turn in zip(texts, turns, strict=True)]

    def _render(self, conversations: Sequence[list[Message]], *, add_generation_prompt: bool) -> list[str]:
        import jinja2

        try:
            texts: list[str] = self._tokenizer.apply_chat_template(
                list(conversations), tokenize=False, add_generation_prompt=add_generation_prompt, **self._kwargs
            )
        except jinja2.TemplateError as error:
            raise ConfigError(
                f"the chat template refuses a conversation: {error}",
                where=f"chat template of {self._name}",
                fix="look at system_message, prompt_config and chat_template_kwargs",
            ) from error
        return texts

    def _frame(self) -> tuple[str, str]:
        """What the template writes before and behind an answer, the user's turn included before."""
        text = self._render([[_user(""), _assistant(Turn(content=_PROBE))]], add_generation_prompt=False)[0]
        before, found, behind = text.rpartition(_PROBE)
        if not found:
            raise ConfigError("the chat template leaves the assistant's text out", where=f"tokenizer {self._name}")
        return before, behind

    def _answer(self, text: str, turn: Turn) -> str:
        if turn.thinking and turn.thinking not in text:
            raise DataError(
                "the chat template leaves reasoning_content out",
                where=f"chat template of {self._name}",
                fix="put the reasoning into the text of the solution before",
            )
        if text.startswith(self._opening):
            answer = text[len(self._opening) :]
        elif self._opening.startswith(self._header) and text.startswith(self._header):
            # The prompt opens more than the answer repeats, as an empty reasoning block when thinking is off.
            answer = text[len(self._header) :]
        else:
            raise ConfigError(
                f"the chat template does not continue its own prompt: {self._opening!r} is followed by {text[:200]!r}",
                where=f"chat template of {self._name}",
                fix="set ++assistant_end to the text that ends a turn",
            )
        if turn.complete:
            return answer
        # Without thinking the generation stands as it came: templates trim, and a cut text may end in a space.
        return answer.removesuffix(self._closing) if turn.thinking else turn.content

    def _base_prompt(self, messages: list[Message]) -> str:
        if len(messages) != 1:
            raise ConfigError(
                f"{self._name} has no chat template, so it takes no system message",
                where="system_message or prompt_config",
                fix="leave the system message out, or use a tokenizer with a chat template",
            )
        return f"{self._tokenizer.bos_token or ''}{messages[0]['content']}"

    def _base_answer(self, turn: Turn) -> str:
        if turn.thinking:
            raise DataError(
                f"{self._name} has no chat template that could set reasoning_content apart",
                where="reasoning_content",
                fix="put the reasoning into the text of the solution before",
            )
        if not turn.complete:
            return turn.content
        if self._tokenizer.eos_token is None:
            raise ConfigError(
                f"{self._name} has neither a chat template nor an end token",
                where="tokenizer",
                fix="set ++assistant_end to the text that ends an answer",
            )
        return f"{turn.content}{self._tokenizer.eos_token}"


class TokenCounter:
    """Counts the tokens of texts, special tokens not added."""

    def __init__(self, tokenizer: str) -> None:
        self._tokenizer = load_tokenizer(tokenizer)

    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Number of tokens of each text."""
        if not texts:
            return []
        encoded = self._tokenizer(
            list(texts), add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False
        )
        return [len(ids) for ids in encoded["input_ids"]]


def load_tokenizer(name: str) -> Any:
    """A Hugging Face tokenizer from a folder or by its name.

    Raises:
        OptionError: there is no such tokenizer.
    """
    if name.startswith(("/", ".", "~")) and not Path(name).is_dir():
        raise OptionError(f"there is no folder {name}", where="tokenizer", fix="give a folder with tokenizer.json")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"no tokenizer can be loaded from {name!r}: {first_line(error)}",
            where="tokenizer",
            fix="give a folder with tokenizer.json, or a Hugging Face name",
        ) from error


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _assistant(turn: Turn) -> Message:
    message = {"role": "assistant", "content": turn.content}
    if turn.thinking is not None:
        message["thinking"] = turn.thinking
    return message
