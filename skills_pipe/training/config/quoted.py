"""A text as a value in the grammar of overrides, whatever is in it."""

from __future__ import annotations

import re
from typing import Final

_BEFORE_PLACE: Final = re.compile(r"(\\*)\$\{")
_BEFORE_QUOTE: Final = re.compile(r"(\\*)('|$)")


def quoted(text: str) -> str:
    """The text in quotes: ``load_config(None, [f"key={quoted(text)}"])`` has it as it is.

    Two grammars read it. To Hydra backslashes are nothing special but before a quote, to OmegaConf but before ``${``.
    """
    plain = _BEFORE_PLACE.sub(lambda found: f"{found[1] * 2}\\${{", text)
    return f"'{_BEFORE_QUOTE.sub(_escaped, plain)}'"


def _escaped(found: re.Match[str]) -> str:
    return found[1] * 2 + ("\\'" if found[2] else "")
