"""A configuration that may be read by everybody."""

from __future__ import annotations

import re
from typing import Any

_SIGNED_IN = re.compile(r"(\w://)[^/\s]+@")
"""An address up to its host, with what signs in there."""


def without_secrets(tree: Any) -> Any:
    """A configuration without what may be a secret: models, and what says how they were made, are given away.

    Of environment variables the names stay, and of an address the part behind user and password.
    """
    if isinstance(tree, str):
        return _SIGNED_IN.sub(r"\1***@", tree)
    if isinstance(tree, list):
        return [without_secrets(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        name: sorted(value) if name == "env_vars" and value else without_secrets(value) for name, value in tree.items()
    }
