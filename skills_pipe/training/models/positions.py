"""Positions that a model has no more of, or that change for all documents of a row when one of them is long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedConfig

from skills_pipe.errors import ConfigError

_LENGTH = "policy.max_total_sequence_length"


def check_positions(config: PreTrainedConfig, *, longest: int) -> None:
    """Refuse documents that reach beyond the positions that a model has learnt one by one, as GPT-2 has.

    The same for models that turn to other rotary frequencies in a row with a token beyond some position: they would
    for all of the documents in it.

    Raises:
        ConfigError: the longest document has more tokens than there are such positions.
    """
    if config.model_type == "gpt2" and longest > config.n_positions:
        raise ConfigError(
            f"a document has {longest} tokens, and the model has {config.n_positions} positions",
            where=_LENGTH,
            fix=f"set it to {config.n_positions}",
        )
    for kind, limit in _switches(config):
        if longest > limit:
            raise ConfigError(
                f"a document has {longest} tokens; beyond {limit} this model's rotary positions ({kind}) change for "
                "every document in the row",
                where=_LENGTH,
                fix=f"set it to {limit}",
            )


def trained_positions(config: PreTrainedConfig) -> int | None:
    """How many positions the model was made for; None where its configuration does not say.

    Rotary positions go on beyond them without an error: the model has just never seen any.
    """
    text = config.get_text_config()
    limits = [limit for _, limit in _switches(text)]
    if limits:
        return min(limits)
    made_for = getattr(text, "max_position_embeddings", None)
    if not isinstance(made_for, int) or made_for < 1:
        return None
    rotary = getattr(text, "rope_parameters", None) or {}
    if rotary.get("rope_type") == "yarn":
        # Published models give the length before it was stretched, in one place or the other.
        return max(made_for, int(rotary["factor"] * _original(text, rotary)))
    return made_for


def beyond_positions(lengths: NDArray[np.int64], positions: int | None) -> tuple[str, str] | None:
    """What is wrong with documents of more tokens than the model has positions, and what to do; None without such."""
    count = 0 if positions is None else int((lengths > positions).sum())
    if not count:
        return None
    are = "1 document is" if count == 1 else f"{count:,} documents are"
    longest = int(lengths.max())
    what = f"{are} longer than the {positions:,} positions that the model was made for, up to {longest:,} tokens"
    fix = (
        f"set ++policy.max_total_sequence_length={positions} (and data.max_input_seq_length, where it is set), or "
        "stretch its rotary positions by policy.hf_config_overrides"
    )
    return what, fix


def _switches(config: PreTrainedConfig) -> Iterator[tuple[str, int]]:
    """Kinds of rotary positions that depend on the longest document of a row, and the length from which they do."""
    rotary = getattr(config, "rope_parameters", None) or {}
    # One set for all layers, or one for each kind of them.
    for parameters in [rotary, *(value for value in rotary.values() if isinstance(value, Mapping))]:
        kind = parameters.get("rope_type")
        if kind == "longrope":
            yield kind, int(_original(config, parameters))
        elif kind == "dynamic":
            yield kind, int(config.max_position_embeddings)


def _original(config: PreTrainedConfig, parameters: Mapping[str, Any]) -> Any:
    known = parameters.get("original_max_position_embeddings")
    return known or getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings
