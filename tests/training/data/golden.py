"""The recorded answers of NeMo RL, and tokenizers to go with them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from skills_pipe.training.data.rows import Conversation

FOLDER = Path(__file__).parents[1] / "golden" / "nemo_rl"

SFT_YAML = "sft_yaml"
"""The template of NeMo RL's default configuration, which has neither headers nor a generation prompt."""


@cache
def inputs() -> dict[str, Any]:
    """Templates, special tokens and conversations of the message logs."""
    return json.loads((FOLDER / "message_log_inputs.json").read_text())


def message_logs() -> list[dict[str, Any]]:
    """Every recorded message log."""
    return [json.loads(line) for line in (FOLDER / "message_log.jsonl").read_text().splitlines()]


@cache
def tokenizer(template: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a recorded template, with its special tokens and chat template."""
    special = inputs()["special"][template]
    made = PreTrainedTokenizerFast(
        tokenizer_file=str(FOLDER / "tokenizer.json"),
        bos_token=special["bos"],
        eos_token=special["eos"],
        pad_token=special["pad"],
        unk_token="<unk>",
    )
    file = FOLDER / f"{template}.jinja"
    made.chat_template = file.read_text() if file.exists() else None
    return made


def template_setting(template: str) -> str | None:
    """The value of ``chat_template`` that a recorded template was used by."""
    return inputs()["templates"][template].get("chat_template", "default")


def conversation(name: str) -> Conversation:
    """A recorded conversation by name."""
    recorded = inputs()["conversations"][name]
    return Conversation(messages=recorded["messages"], tools=recorded["tools"], form="chat", where=name)
