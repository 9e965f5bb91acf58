"""A plain tree becomes the dataclasses of the schema; everything that does not fit is collected."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, TypeVar, Union

from skills_pipe.errors import ConfigError, did_you_mean
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.resolvers import UNKNOWN
from skills_pipe.training.config.schema.declare import NO_VALUE, Key

Section = TypeVar("Section")

_WORDS_FOR_NULL = ("None", "none", "null", "NULL", "Null", "~")

_TYPES_ELSEWHERE = {"fp32": "float32", "float": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}
"""Types of numbers as others call them."""


class Reader:
    """Reads sections of a plain tree and collects what is wrong with them.

    A key that is written in another layout than programs read (``data``, ``policy.scheduler``) is read as written.

    Args:
        origins: where keys were set.
        derived: keys whose value comes from another key.

    Attributes:
        unknown: keys that the schema does not have.
        problems: values that do not fit, and keys that are missing.
        followed: values that do not fit and come from another key, where the mistake was made.
        incomplete: whether a value is UNKNOWN where that cannot stand for it.
    """

    def __init__(self, origins: Origins, derived: Collection[str]) -> None:
        self.unknown: list[ConfigError] = []
        self.problems: list[ConfigError] = []
        self.followed: list[ConfigError] = []
        self.incomplete = False
        self._origins = origins
        self._derived = derived

    def section(self, cls: type[Section], tree: Any, path: str = "") -> Section | None:
        """An instance of the schema class ``cls``; None when something in it does not fit."""
        if not isinstance(tree, Mapping):
            self._wrong(path, "a section of keys", tree)
            return None
        before = len(self.problems) + len(self.followed)
        self._report_unknown(cls, tree, path)
        values = {name: self._key(name, hint, info, tree, path) for name, (hint, info) in declared(cls).items()}
        return cls(**values) if len(self.problems) + len(self.followed) == before else None

    def _report_unknown(self, cls: type, tree: Mapping[str, Any], path: str) -> None:
        for name in tree:
            if name not in declared(cls):
                for dotted in _written_in(_join(path, name), tree[name]):
                    advice = meant_key(dotted, known_keys()) or "remove it"
                    where = self._origins.where(dotted)
                    self.unknown.append(ConfigError(f"unknown key {dotted}", where=where, fix=advice))

    def _key(self, name: str, hint: Any, info: Key, tree: Mapping[str, Any], path: str) -> Any:
        dotted = _join(path, name)
        if name not in tree:
            return self._absent(dotted, hint, info)
        return self._value(tree[name], hint, dotted, info)

    def _absent(self, dotted: str, hint: Any, info: Key) -> Any:
        if info.absent is not NO_VALUE:
            return info.absent
        if type(None) in typing.get_args(hint):
            return None
        self.problems.append(ConfigError(f"{dotted} is missing", where=self._origins.where(dotted), fix="set it"))
        return None

    def _value(self, value: Any, hint: Any, path: str, info: Key) -> Any:
        members = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
        if type(None) in members and (value is None or (isinstance(value, str) and value in _WORDS_FOR_NULL)):
            return None
        if isinstance(value, str) and value == UNKNOWN:
            self.incomplete = self.incomplete or str not in members
            return value
        member = _fitting([item for item in members if item is not type(None)], value)
        origin = typing.get_origin(member)
        if dataclasses.is_dataclass(member):
            return self.section(typing.cast(type, member), value, path)
        if origin is tuple:
            return self._sequence(value, typing.get_args(member)[0], path, info)
        if origin is Literal:
            return self._choice(value, typing.get_args(member), path, info)
        if origin is not None and issubclass(origin, Mapping):
            return self._mapping(value, typing.get_args(member)[1], path, info)
        return self._scalar(value, member, path, info)

    def _sequence(self, value: Any, item: Any, path: str, info: Key) -> Any:
        if not isinstance(value, list | tuple):
            return self._wrong(path, "a list", value)
        return tuple(self._value(element, item, f"{path}.{index}", info) for index, element in enumerate(value))

    def _mapping(self, value: Any, item: Any, path: str, info: Key) -> Any:
        if not isinstance(value, Mapping):
            return self._wrong(path, "a mapping of keys", value)
        if item is Any:
            return _with_numbers(value) if info.numbers else dict(value)
        return {str(name): self._value(element, item, _join(path, str(name)), info) for name, element in value.items()}

    def _choice(self, value: Any, choices: tuple[str, ...], path: str, info: Key) -> Any:
        if isinstance(value, str) and info.lower:
            value = value.lower()
        if value in choices:
            return value
        meant = did_you_mean(_TYPES_ELSEWHERE.get(str(value), str(value)), choices)
        return self._wrong(path, _listing(choices), value, meant or info.otherwise)

    def _scalar(self, value: Any, hint: Any, path: str, info: Key) -> Any:
        expected, convert = _SCALARS[hint]
        found = convert(value)
        if found is NO_VALUE:
            return self._wrong(path, expected, value)
        if info.minimum is not None and found < info.minimum:
            return self._wrong(path, f"at least {info.minimum:g}", value)
        if info.above is not None and found <= info.above:
            return self._wrong(path, f"more than {info.above:g}", value)
        return found

    def _wrong(self, path: str, expected: str, value: Any, advice: str | None = None) -> Any:
        found = self.followed if path in self._derived else self.problems
        found.append(
            ConfigError(f"{path} must be {expected}, not {value!r}", where=self._origins.where(path), fix=advice)
        )


def declared(cls: Any) -> Mapping[str, tuple[Any, Key]]:
    """Keys of a section: name -> the type in which it is written, and what was declared of it."""
    return _declared(cls)


@functools.cache
def _declared(cls: Any) -> Mapping[str, tuple[Any, Key]]:
    keys = {}
    for name, annotated in typing.get_type_hints(cls, include_extras=True).items():
        hint, info = typing.get_args(annotated)
        keys[name] = (info.written or hint, info)
    return keys


@functools.cache
def known_keys(cls: Any = None, prefix: str = "") -> tuple[str, ...]:
    """Dotted keys of a section as it may be written; of the whole configuration when ``cls`` is None."""
    from skills_pipe.training.config.schema.training import TrainingConfig

    keys: list[str] = []
    for name, (hint, _) in declared(cls or TrainingConfig).items():
        dotted = _join(prefix, name)
        keys.append(dotted)
        for section in _sections_of(hint):
            keys.extend(known_keys(section, dotted))
    return tuple(keys)


def meant_key(word: str, known: Collection[str]) -> str | None:
    """Advice naming the known key that a wrong one stands for: what others call so, or what is spelled alike."""
    word = _in_known_section(word, known)
    if word in known:
        return f"did you mean {word!r}?"
    section, _, name = word.rpartition(".")
    called_so = _called_so(name, known)
    if called_so:
        nearest = max(called_so, key=lambda key: _sections_in_common(key.split("."), word.split(".")))
        neighbours = [key for key in called_so if key.rpartition(".")[0] == nearest.rpartition(".")[0]]
        return f"did you mean {' and '.join(map(repr, neighbours))}?"
    if f"{section}.{_ARGUMENTS}" in known and not did_you_mean(name, ("name", _ARGUMENTS)):
        return f"did you mean {f'{section}.{_ARGUMENTS}.{name}'!r}?"
    return did_you_mean(word, known)


def key_called(name: str) -> str | None:
    """The key that other trainers call ``name``, or that has this name in its section.

    Of several the first one that is usual; None where none is.
    """
    known = known_keys()
    called_so = [name] if name in known else _called_so(name, known)
    called_so = called_so or [key for section in _FIRST_SECTIONS if (key := f"{section}.{name}") in known]
    if called_so:
        return called_so[0]
    leaves = [key for key in known if key.rpartition(".")[2] == name]
    return leaves[0] if len(leaves) == 1 else None


_FIRST_SECTIONS = ("sft", "policy", "data")
"""Whose keys are meant by a name that sections inside of them, or the other ones, have too."""

_ARGUMENTS = "kwargs"
"""The free section beside the name of a class."""


def _called_so(name: str, known: Collection[str]) -> list[str]:
    return [key for key, names in names_elsewhere() if name in names and key in known]


def _in_known_section(word: str, known: Collection[str]) -> str:
    """``policy.lora.alpha`` with the section that others call so, ``policy.dtensor_cfg.lora_cfg``."""
    section, _, name = word.rpartition(".")
    if not section or section in known:
        return word
    called_so = _called_so(section.rpartition(".")[2], known)
    return f"{called_so[0]}.{name}" if called_so else word


def _written_in(key: str, value: Any) -> list[str]:
    """Unknown keys of an unknown section that others have, or of which one is meant; else the section itself."""
    inner = [str(name) for name in value] if isinstance(value, Mapping) else []
    told = _called_so(key.rpartition(".")[2], known_keys()) or any(map(key_called, inner))
    return [_join(key, name) for name in inner] if inner and told else [key]


def _sections_in_common(one: list[str], other: list[str]) -> int:
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))))


def names_elsewhere(cls: Any = None, prefix: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:
    """Keys with the names that other trainers give them."""
    from skills_pipe.training.config.schema.training import TrainingConfig

    for name, (hint, info) in declared(cls or TrainingConfig).items():
        dotted = _join(prefix, name)
        if info.also:
            yield dotted, info.also
        for section in _sections_of(hint):
            yield from names_elsewhere(section, dotted)


def _sections_of(hint: Any) -> list[type]:
    """Section classes that a key may hold directly."""
    members = typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)
    return [member for member in members if dataclasses.is_dataclass(member) and isinstance(member, type)]


def _fitting(members: list[Any], value: Any) -> Any:
    """The member of a union that ``value`` is meant for, by its shape; the first when none is."""
    if isinstance(value, list | tuple):
        return next((member for member in members if typing.get_origin(member) is tuple), members[0])
    if isinstance(value, Mapping):
        sections = [member for member in members if dataclasses.is_dataclass(member)]
        return max(sections, key=lambda cls: len(declared(cls).keys() & value.keys()), default=members[0])
    return members[0]


def _with_numbers(value: Any) -> Any:
    """A plain value in which text that is a number has become that number."""
    if isinstance(value, Mapping):
        return {name: _with_numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    number = _number(value) if isinstance(value, str) else NO_VALUE
    return value if number is NO_VALUE else number


def _boolean(value: Any) -> Any:
    words = {"true": True, "false": False}
    if isinstance(value, str):
        return words.get(value.lower(), NO_VALUE)
    return value if isinstance(value, bool) else NO_VALUE


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        return NO_VALUE
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return NO_VALUE
    return float(value) if isinstance(value, int | float) and value == value else NO_VALUE


def _whole_number(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    number = _number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else NO_VALUE


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else NO_VALUE


_SCALARS: Mapping[Any, tuple[str, Callable[[Any], Any]]] = {
    bool: ("true or false", _boolean),
    int: ("a whole number", _whole_number),
    float: ("a number", _number),
    str: ("text", _text),
}


def _listing(choices: tuple[str, ...]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
