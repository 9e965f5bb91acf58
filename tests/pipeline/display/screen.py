"""A screen that remembers what it showed."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console


def console(**settings: Any) -> Console:
    """A console that writes into memory."""
    return Console(file=io.StringIO(), highlight=False, **settings)


def shown(out: Console) -> str:
    """All that was written to it."""
    return out.file.getvalue()  # type: ignore[attr-defined]
