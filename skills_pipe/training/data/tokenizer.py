"""The tokenizer of a model."""

from __future__ import annotations

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from skills_pipe.errors import ConfigError, first_line


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or a hub model; without a padding token of its own, it pads with its end token.

    Raises:
        ConfigError: there is no tokenizer.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"no tokenizer in {name!r}: {first_line(error)}",
            where="policy.tokenizer.name",
            fix="give a folder with tokenizer.json, or the id of a model on the hub",
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
