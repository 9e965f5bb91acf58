"""Which files of a folder belong to which split: as the folder's card says, else as their names tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

from skills_pipe.errors import DataError
from skills_pipe.training.config.dataset_names import is_data_file

CARD: Final = "README.md"

_SHARD: Final = re.compile(r"([^/]+?)-\d{5}-of-\d{5}")
_WORDS: Final = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What Hugging Face reads from the names of files and folders."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked of a folder of files.

    Attributes:
        split: by its name; None: ``otherwise`` where there is such a split, else the only one.
        otherwise: what data is usually called that is used so: ``train`` or ``validation``.
        subset: configuration; None: the only or default one.
        name: what the folder is called in messages.
        only: pattern of the files that are meant, whatever splits there are, where any file fits it.
    """

    split: str | None
    otherwise: str
    subset: str | None
    name: str
    only: str | None = None


def files_of_split(names: Sequence[str], card: str | None, wanted: Wanted) -> list[str]:
    """The files that hold a split, in order.

    Args:
        names: all files of the folder, relative to it, with slashes.
        card: text of its README.md, None without.
        wanted: which ones.

    Raises:
        DataError: there is no such subset or split; the message names those that there are.
    """
    data = sorted(name for name in names if is_data_file(name) and not _is_hidden(name))
    meant = [name for name in data if wanted.only and _matches(name, wanted.only)]
    if meant:
        return meant
    configs = _configs(card)
    splits = _declared(data, configs, wanted) if configs else _by_name(_of_subset(data, wanted))
    if not any(splits.values()):
        raise DataError("there are no files of rows", where=wanted.name)
    return splits[_chosen(splits, wanted)]


def _chosen(splits: Mapping[str, list[str]], wanted: Wanted) -> str:
    there = [split for split, files in splits.items() if files]
    if wanted.split in there:
        return str(wanted.split)
    if wanted.split is None and wanted.otherwise in there:
        return wanted.otherwise
    if wanted.split is None and len(there) == 1:
        return there[0]
    what = f"no split {wanted.split!r}" if wanted.split else f"no split {wanted.otherwise!r} among several"
    raise DataError(f"there is {what}", where=wanted.name, fix=f"set the split to one of {', '.join(there)}")


def _configs(card: str | None) -> list[dict[str, Any]]:
    """The configurations with files that a card declares in the YAML at its beginning."""
    if card is None or not card.startswith("---"):
        return []
    try:
        header = yaml.safe_load(card.split("---", 2)[1])
    except (yaml.YAMLError, IndexError):
        return []
    listed = header.get("configs") if isinstance(header, Mapping) else None
    configs = [config for config in listed if isinstance(config, Mapping)] if isinstance(listed, list) else []
    return [dict(config) for config in configs if config.get("data_files") or config.get("data_dir")]


def _declared(data: Sequence[str], configs: Sequence[Mapping[str, Any]], wanted: Wanted) -> dict[str, list[str]]:
    config = _chosen_config(configs, wanted)
    folder = str(config.get("data_dir") or "").strip("/")
    inside = [name for name in data if not folder or name.startswith(folder + "/")]
    if not config.get("data_files"):
        return _by_name(inside)
    splits: dict[str, list[str]] = {}
    for split, patterns in _patterns(config["data_files"]):
        full = [f"{folder}/{pattern}" if folder else pattern for pattern in patterns]
        splits.setdefault(split, []).extend(name for name in data if any(_matches(name, pattern) for pattern in full))
    return splits


def _chosen_config(configs: Sequence[Mapping[str, Any]], wanted: Wanted) -> Mapping[str, Any]:
    names = [str(config.get("config_name", "default")) for config in configs]
    by_name = dict(zip(names, configs, strict=True))
    if wanted.subset in by_name:
        return by_name[wanted.subset]
    default = [config for name, config in by_name.items() if config.get("default") is True or name == "default"]
    if wanted.subset is None and (default or len(configs) == 1):
        return (default or list(configs))[0]
    what = "no subset is given" if wanted.subset is None else f"there is no subset {wanted.subset!r}"
    raise DataError(what, where=wanted.name, fix=f"set subset to one of {', '.join(names)}")


def _patterns(data_files: Any) -> list[tuple[str, list[str]]]:
    """Each split and its patterns; a card may give one pattern, a list of them, or a list of splits with theirs."""
    listed = data_files if isinstance(data_files, list) else [data_files]
    found = []
    for item in listed:
        one = item if isinstance(item, Mapping) else {"path": item}
        paths = one.get("path") or []
        found.append((str(one.get("split", "train")), [paths] if isinstance(paths, str) else list(paths)))
    return found


def _matches(name: str, pattern: str) -> bool:
    """Shell patterns in which ``**/`` may stand for no folder, and ``*`` for no slash."""
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.findall(r"\*\*/|\*\*|\*|\?|[^*?]+", pattern.removeprefix("./"))
    return re.fullmatch("".join(known.get(part) or re.escape(part) for part in parts), name) is not None


def _of_subset(data: Sequence[str], wanted: Wanted) -> list[str]:
    """The files in the folder of a subset, by which folders without a card tell theirs apart."""
    if wanted.subset is None:
        return list(data)
    inside = [name for name in data if wanted.subset in PurePosixPath(name).parts[:-1]]
    if not inside:
        folders = sorted({part for name in data for part in PurePosixPath(name).parts[:-1]})
        fix = f"set subset to one of {', '.join(folders)}" if folders else "leave subset out"
        raise DataError(f"there is no subset {wanted.subset!r}", where=wanted.name, fix=fix)
    return inside


def _by_name(data: Sequence[str]) -> dict[str, list[str]]:
    """Splits by the names of files; what names no split is for training where nothing else is."""
    splits: dict[str, list[str]] = {}
    for name in data:
        splits.setdefault(_split_of(name) or "", []).append(name)
    rest = splits.pop("", [])
    if rest and "train" not in splits:
        splits["train"] = rest
    return splits


def _split_of(name: str) -> str | None:
    shard = _SHARD.search(PurePosixPath(name).name)
    if shard:
        return next((split for split, words in _WORDS.items() if shard[1] in words), shard[1])
    words = set(re.split(r"[^a-z]+", name.lower()))
    return next((split for split, known in _WORDS.items() if words & set(known)), None)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__")) for part in PurePosixPath(name).parts)
