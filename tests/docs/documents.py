"""The project's Markdown documents and the blocks of code in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"))
)

LANGUAGES = ("", "bash", "json", "python", "text", "yaml")
"""Others are refused: a block marked ``sh`` or ``console`` would not be executed."""

EXECUTED = ("bash", "python")

_FENCE = re.compile(r"^```(.*)$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code.

    Attributes:
        line: of the document, counted from 1, of its opening fence.
        language: what stands behind that fence.
        expected: the ``text`` block right behind it, which shows what it prints; None without one.
    """

    line: int
    language: str
    text: str
    expected: str | None = None


def blocks(markdown: str) -> list[Block]:
    """All fenced blocks in their order."""
    found = list(_fenced(markdown.splitlines()))
    following: list[Block | None] = [*found[1:], None]
    return [_with_output(block, after, markdown.splitlines()) for block, after in zip(found, following, strict=False)]


def commands(script: str) -> list[str]:
    """The commands of a shell block: comments and empty lines left out, continued lines joined by their backslash."""
    joined: list[str] = []
    open_line = False
    for line in script.splitlines():
        if open_line:
            joined[-1] += "\n" + line
        elif line.strip() and not line.lstrip().startswith("#"):
            joined.append(line)
        else:
            continue
        open_line = line.endswith("\\")
    return joined


def _fenced(lines: list[str]) -> Iterator[Block]:
    start: int | None = None
    for number, line in enumerate(lines, start=1):
        fence = _FENCE.match(line)
        if fence and start is None:
            start, language = number, fence.group(1).strip()
        elif fence and start is not None:
            yield Block(line=start, language=language, text="\n".join(lines[start : number - 1]) + "\n")
            start = None
    if start is not None:
        raise ValueError(f"the block of line {start} is not closed")


def _with_output(block: Block, after: Block | None, lines: list[str]) -> Block:
    if after is None or block.language not in EXECUTED or after.language != "text":
        return block
    end = block.line + len(block.text.splitlines()) + 1
    if any(line.strip() for line in lines[end : after.line - 1]):
        return block
    return Block(line=block.line, language=block.language, text=block.text, expected=after.text)
