"""Rows of an instruction, an input that may be empty or absent, and an output: the format of Alpaca."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from skills_pipe.training.data.rows import BadRow, Conversation, Row

_RESPONSE: Final = "\n\n### Response:\n"
_ALONE: Final = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n"
)
_WITH_INPUT: Final = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)


@dataclass(frozen=True, kw_only=True)
class Alpaca:
    """Each row becomes Alpaca's prompt, asked by the user, and the output as the answer.

    Attributes:
        instruction_key: the task.
        input_key: what the task is about.
        output_key: the answer.
    """

    instruction_key: str = "instruction"
    input_key: str = "input"
    output_key: str = "output"

    def rows(self, value: Any, where: str) -> Iterator[Row]:
        """The question and answer of a row."""
        if not isinstance(value, Mapping):
            yield BadRow(where=where, what="not a JSON object")
            return
        texts: dict[str, Any] = {key: value.get(key) for key in (self.instruction_key, self.input_key, self.output_key)}
        if texts[self.input_key] is None:
            texts[self.input_key] = ""
        for key, text in texts.items():
            if not isinstance(text, str):
                kind = "missing" if text is None else f"{type(text).__name__}, not text"
                yield BadRow(where=where, what=f"{key!r} is {kind}")
                return
        prompt = alpaca_prompt(texts[self.instruction_key], texts[self.input_key])
        yield Conversation(
            messages=[{"role": "user", "content": prompt}, {"role": "assistant", "content": texts[self.output_key]}],
            tools=None,
            form="pair",
            where=where,
        )


def alpaca_prompt(instruction: str, context: str = "") -> str:
    """What the model is asked: the text that Alpaca's models were trained with."""
    if context:
        return f"{_WITH_INPUT}{instruction}\n\n### Input:\n{context}{_RESPONSE}"
    return f"{_ALONE}{instruction}{_RESPONSE}"
