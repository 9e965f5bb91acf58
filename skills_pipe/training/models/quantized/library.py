"""bitsandbytes, which packs and unpacks."""

from __future__ import annotations

import logging
from types import ModuleType

from skills_pipe.training.config.quantization import not_installed


def functions() -> ModuleType:
    """``bitsandbytes.functional``; imported at the first use, for it takes seconds.

    Raises:
        ConfigError: it is not installed.
    """
    # It looks for a product with packed weights in one kernel, and misses it; nothing here computes one.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        import bitsandbytes.functional as found
    except ModuleNotFoundError as error:
        raise not_installed() from error
    return found
