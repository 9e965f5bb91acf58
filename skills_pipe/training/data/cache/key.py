"""What a tokenised data set follows from, as one hash: rows, tokenizer, template, options and program."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from transformers import PreTrainedTokenizerBase

from skills_pipe.artifacts.identity import digest
from skills_pipe.training.data.cache.content import Contents
from skills_pipe.training.data.chunk import Recipe
from skills_pipe.training.data.fast_form import fast_form
from skills_pipe.training.data.sources import DataSource

_PROGRAMS: Final = ("transformers", "tokenizers", "jinja2", "tiktoken", "numpy")

STEPS: Final = {"rows": 2, "documents": 1, "tokens": 2, "limits": 2}
"""Version of what each step makes: raised when the same input comes to give something else, not when code changes.

Rows are read from files, made documents by template and mask, which are tokenised, and shortened or left out. A test
holds what each step makes of some input.
"""


def cache_key(sources: Sequence[DataSource], recipe: Recipe, contents: Contents) -> str | None:
    """The key of the data set of these rows; None where not all that it follows from can be told.

    A template that prints the date makes no other key each day: a training that goes on tomorrow keeps its data.
    """
    read = [_source(source, contents) for source in sources]
    tokenizer = tokenizer_digest(recipe.tokenizer)
    if None in read or tokenizer is None:
        return None
    try:
        return digest(
            {
                "sources": read,
                "tokenizer": tokenizer,
                "template": asdict(recipe.template),
                "settings": asdict(recipe.settings),
                "program": _program(),
            }
        )
    except TypeError:
        # Something that JSON cannot hold, such as an object given as a keyword of the template.
        return None


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Hash of all that decides which ids a text gets; None for a tokenizer that runs code of its own."""
    backend = fast_form(tokenizer)
    if backend is None:
        return None
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    state = json.dumps([type(tokenizer).__name__, special, backend.encode_special_tokens], sort_keys=True)
    return hashlib.sha256(f"{backend.to_str()}\0{state}".encode()).hexdigest()


def _source(source: DataSource, contents: Contents) -> dict[str, Any] | None:
    """How a source is read, and the hash of what its file holds; None where code of the user's reads the rows."""
    kind = type(source.format)
    if not is_dataclass(source.format) or kind.__module__.partition(".")[0] != __name__.partition(".")[0]:
        return None
    return {
        "content": contents.digest(source.path),
        "kind": source.path.suffixes,
        "format": f"{kind.__module__}.{kind.__qualname__}",
        "keys": asdict(source.format),
        "part": asdict(source.part) if source.part is not None else None,
        "preserving": source.preserving,
    }


@lru_cache(maxsize=1)
def _program() -> dict[str, str | int]:
    """The versions of what tokenises: a data set is made again when one of them changes."""
    return {**STEPS, **{name: _version(name) for name in _PROGRAMS}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
