"""Where a key of the configuration was set, for error messages and for the question which of two settings is later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

PACKAGED = Path(__file__).with_name("sft.yaml")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """An override as far as its place matters: the dotted key it sets, and its text."""

    key: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Origins:
    """The places that a configuration was put together from.

    Attributes:
        files: YAML files, the one that wins first; the packaged defaults are the last.
        overrides: in the order given; a later one wins.
        given: sections that a program gave as values instead of a file.
    """

    files: Sequence[Path]
    overrides: Sequence[Setting]
    given: Mapping[str, Any] = field(default_factory=dict)

    def where(self, key: str) -> str:
        """The place that decided ``key``, as a person would look for it."""
        index = self._override(key)
        if index is not None:
            return f"override {self.overrides[index].text!r}"
        if _is_given(self.given, key):
            return f"{key} in the given configuration"
        for file in self.files:
            line = _line_of(file, key)
            if line is not None:
                return f"the packaged sft.yaml, line {line}" if file == PACKAGED else f"{file}:{line}"
        return str(self.files[0]) if self.files[0] != PACKAGED else "the packaged sft.yaml"

    def rank(self, key: str) -> int:
        """How late ``key`` was set: 0 in the packaged defaults, 1 in a file, more by an override."""
        index = self._override(key)
        if index is not None:
            return 2 + index
        return int(
            _is_given(self.given, key)
            or any(file != PACKAGED and _line_of(file, key) is not None for file in self.files)
        )

    def overrides_later(self, key: str, other: str) -> bool:
        """Whether an override set ``key``, and nothing set ``other`` after that."""
        return self.rank(key) > max(1, self.rank(other))

    def _override(self, key: str) -> int | None:
        """The last override that set ``key`` or a section around it, else the last one inside it."""
        for around in (True, False):
            for index in range(len(self.overrides) - 1, -1, -1):
                set_key = self.overrides[index].key
                outer, inner = (set_key, key) if around else (key, set_key)
                if inner == outer or inner.startswith(f"{outer}."):
                    return index
        return None


def _is_given(sections: Mapping[str, Any], key: str) -> bool:
    inside: Any = sections
    for part in key.split("."):
        if not isinstance(inside, Mapping) or part not in inside:
            return False
        inside = inside[part]
    return True


def _line_of(file: Path, key: str) -> int | None:
    """Line of ``key`` in a YAML file, counted from 1; None when the file does not set it."""
    import yaml

    node = _composed(file.read_text(encoding="utf-8"))
    line = None
    for part in key.split("."):
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdigit() and int(part) < len(node.value):
            pair = (node.value[int(part)], node.value[int(part)])
        else:
            pair = None
        if pair is None:
            return None
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line


@lru_cache(maxsize=4)
def _composed(text: str) -> Any:
    """The tree of nodes of a YAML text; asked for by each key that is looked for in it."""
    import yaml

    return yaml.compose(text, Loader=yaml.SafeLoader)
