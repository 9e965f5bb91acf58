"""Prompt configurations: the text around a problem, from the packaged ones or a YAML file of the user."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from skills_pipe.errors import ConfigError, DataError, did_you_mean
from skills_pipe.training.prepare.jsonl import Row

_FOLDER = Path(__file__).parent / "prompts"
_FEW_SHOT_TEXTS = {"prefix", "template", "suffix"}


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Text around a problem.

    Attributes:
        user: the user's turn, with ``{key}`` for the values of a row.
        system: the system's turn, None without one.
        name: where it came from, for messages.
    """

    user: str
    system: str | None = None
    name: str = "prompt"
    _keys: frozenset[str] = field(init=False, repr=False, default=frozenset())

    def __post_init__(self) -> None:
        try:
            parts = list(string.Formatter().parse(self.user))
        except ValueError as error:
            raise ConfigError(
                f"the user text is no template: {error}", where=self.name, fix="write {{ and }} for plain braces"
            ) from error
        names = [name for _, name, _, _ in parts if name is not None]
        if any(not name.isidentifier() for name in names):
            raise ConfigError(
                "a placeholder of the user text is no plain key", where=self.name, fix="write {{ and }} for braces"
            )
        object.__setattr__(self, "_keys", frozenset(names) - {"examples"})

    def messages(self, row: Row) -> list[dict[str, str]]:
        """The turns before the assistant's, filled with the values of a row.

        Raises:
            DataError: the row lacks a key that the prompt names.
        """
        missing = sorted(self._keys - row.keys())
        if missing:
            raise DataError(
                f"the prompt {self.name} needs {{{missing[0]}}}, and a row has only {', '.join(row)}",
                where="prompt_config",
                fix=did_you_mean(missing[0], row) or "use another prompt_config, or keep the key in the rows",
            )
        user = {"role": "user", "content": self.user.format_map({**row, "examples": ""})}
        return [user] if self.system is None else [{"role": "system", "content": self.system}, user]


@dataclass(frozen=True, kw_only=True)
class CodeTags:
    """How code and its output are set apart in a solution."""

    code_begin: str = "```python\n"
    code_end: str = "```\n"
    code_output_begin: str = "```output\n"
    code_output_end: str = "```\n"
    code_output_format: str = "qwen"


def load_prompt(source: str | Mapping[str, Any], *, system_message: str | None = None) -> Prompt:
    """A prompt by the name of a packaged one (``generic/math``), the path of a YAML file, or its contents.

    Args:
        source: name, path ending in ``.yaml``, or mapping with ``user`` and perhaps ``system``.
        system_message: replaces the system's turn.

    Raises:
        ConfigError: unknown name, unknown keys, or few-shot examples, which have no place in training data.
    """
    name = source if isinstance(source, str) else "prompt_config"
    values = _load(source, "prompt_config") if isinstance(source, str) else source
    allowed = {"user", "system", "few_shot_examples"}
    for key in values:
        if key not in allowed:
            raise ConfigError(f"{key!r} is no key of a prompt", where=name, fix=did_you_mean(key, allowed))
    if not isinstance(values.get("user"), str):
        raise ConfigError("a prompt needs a text at 'user'", where=name)
    active = {key for key, value in (values.get("few_shot_examples") or {}).items() if value} - _FEW_SHOT_TEXTS
    if active:
        raise ConfigError(
            f"few-shot examples are not supported in training data ({', '.join(sorted(active))})",
            where=f"few_shot_examples of {name}",
            fix="remove them from the prompt",
        )
    system = values.get("system") if system_message is None else system_message
    return Prompt(user=values["user"], system=system, name=name)


def load_code_tags(source: str) -> CodeTags:
    """Code tags by the name of packaged ones (``qwen``) or the path of a YAML file."""
    values = _load(source, "code_tags")
    allowed = [option.name for option in fields(CodeTags)]
    for key in values:
        if key not in allowed:
            raise ConfigError(f"{key!r} is no key of code tags", where=source, fix=did_you_mean(key, allowed))
    return CodeTags(**values)


def _load(source: str, kind: str) -> dict[str, Any]:
    folder = _FOLDER / "code_tags" if kind == "code_tags" else _FOLDER
    path = Path(source) if source.endswith(".yaml") else folder / f"{source}.yaml"
    if not path.is_file():
        names = sorted(str(file.relative_to(folder).with_suffix("")) for file in folder.rglob("*.yaml"))
        names = [name for name in names if kind == "code_tags" or not name.startswith("code_tags/")]
        advice = did_you_mean(source, names) or f"use {', '.join(names)} or the path of a .yaml file"
        raise ConfigError(f"there is no {source!r} among the packaged files of {kind}", where=kind, fix=advice)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"the file is no YAML: {' '.join(str(error).split())}", where=str(path)) from error
    if not isinstance(values, dict):
        raise ConfigError("the file holds no keys", where=str(path))
    return values
