"""Text of data as it can be shown: nothing in it moves the cursor, rings, or colours the terminal."""

from __future__ import annotations

from typing import Final

_SHOWN_AS: Final = {
    **{code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    # Characters that turn the direction of the text around them, and lone halves of pairs.
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)], 0xFFFD),
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),
}


def visible(text: str) -> str:
    """The text with a picture in place of each control character; line breaks and tabs stay."""
    return text.translate(_SHOWN_AS)
