"""Prompts: YAML files with the user's and the system's message, filled with the fields of a row."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from skills_pipe.errors import DataError, OptionError, did_you_mean

_ROOT = Path(__file__).parent
_KEYS = ("user", "system", "few_shot_examples")

Message = dict[str, str]
"""``role`` and ``content``, as chat templates and servers take them."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt.

    Attributes:
        name: how it was asked for.
        user: text with ``{field}`` for fields of a row; ``{{`` and ``}}`` stand for braces.
        system: text of the system message, as it stands; None for no such message.
    """

    name: str
    user: str
    system: str | None = None

    def fill(self, row: Mapping[str, Any]) -> list[Message]:
        """The messages of one row.

        Raises:
            DataError: the row lacks a field of the prompt.
        """
        try:
            user = self.user.format_map({"examples": "", **row})
        except KeyError as error:
            field = str(error.args[0])
            raise DataError(
                f"the row has no field {field!r}",
                where=f"prompt {self.name}",
                fix=did_you_mean(field, row) or f"its fields are {', '.join(sorted(row))}",
            ) from error
        system = [{"role": "system", "content": self.system}] if self.system is not None else []
        return [*system, {"role": "user", "content": user}]


def load_prompt(name: str, *, system_message: str | None = None) -> Prompt:
    """Read a prompt by its packaged name (``generic/math``) or the path of a file that ends in ``.yaml``.

    Raises:
        OptionError: there is no such prompt, or it has unknown keys, no ``user``, or broken braces.
    """
    path = Path(name) if name.endswith(".yaml") else _ROOT / f"{name}.yaml"
    if not path.is_file():
        known = list(_names())
        raise OptionError(
            f"there is no prompt {name!r}",
            where="prompt_config",
            fix=did_you_mean(name, known) or f"choose one of {', '.join(known)}, or the path of a .yaml file",
        )
    prompt = _parse(name, path)
    return Prompt(name=name, user=prompt.user, system=prompt.system if system_message is None else system_message)


def _names() -> Iterable[str]:
    return sorted(str(path.relative_to(_ROOT).with_suffix("")) for path in _ROOT.rglob("*.yaml"))


def _parse(name: str, path: Path) -> Prompt:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise OptionError(f"the prompt is no YAML: {' '.join(str(error).split())}", where=str(path)) from error
    if not isinstance(content, dict) or not isinstance(content.get("user"), str):
        raise OptionError("a prompt needs the key 'user' with a text", where=str(path))
    unknown = sorted(content.keys() - _KEYS)
    if unknown:
        advice = did_you_mean(unknown[0], _KEYS) or f"the keys are {', '.join(_KEYS)}"
        raise OptionError(f"unknown key {unknown[0]!r}", where=str(path), fix=advice)
    # Texts around examples do nothing by themselves; only a choice of examples does.
    active = sorted((content.get("few_shot_examples") or {}).keys() - {"prefix", "template", "suffix"})
    if active:
        raise OptionError(
            f"few-shot examples are not supported ({', '.join(active)})",
            where=f"few_shot_examples of {path}",
            fix="remove them from the prompt",
        )
    _check_fields(content["user"], path)
    return Prompt(name=name, user=content["user"], system=content.get("system"))


def _check_fields(text: str, path: Path) -> None:
    """Refuse broken braces and anything in them that is not the plain name of a field."""
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise OptionError(f"{error}", where=str(path), fix="write {{ and }} for braces in the text") from error
    for name in names:
        if not name.isidentifier():
            raise OptionError(f"{{{name}}} names no field", where=str(path), fix="write {{ and }} for braces")
