"""Datasets that are classes of the user's: what they make is written to a file of rows and read like any other.

A class has ``formatted_ds``, a mapping of split names to rows of messages, and ``task_spec``, as NeMo RL 0.5 asks for;
or ``dataset`` and, where it has one, ``val_dataset``, as later releases do.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skills_pipe.errors import ConfigError, DataError, did_you_mean
from skills_pipe.training.data.records.line_index import cache_folder


@dataclass(frozen=True, kw_only=True)
class UserDataset:
    """What an instance of such a class holds.

    Attributes:
        splits: split name -> its rows.
        prompt: text with ``{}`` that its task puts around the first question, None without.
        system_prompt: of its task, None without.
    """

    splits: Mapping[str, Iterable[Any]]
    prompt: str | None
    system_prompt: str | None

    @classmethod
    def make(cls, path: str, keys: Mapping[str, Any]) -> UserDataset:
        """Make an instance of the class at the import path ``path``; it gets those of ``keys`` that it asks for.

        Raises:
            ConfigError: there is no such class, it asks for more, or it holds no rows.
        """
        made = _class_at(path)
        made = made(**_arguments(made, path, keys))
        splits = getattr(made, "formatted_ds", None)
        if splits is None and hasattr(made, "dataset"):
            found = {"train": made.dataset, "validation": getattr(made, "val_dataset", None)}
            splits = {name: rows for name, rows in found.items() if rows is not None}
        if not isinstance(splits, Mapping) or not splits:
            raise ConfigError(
                f"{path} has neither formatted_ds, rows by split, nor dataset",
                where="data.dataset_name",
                fix="set self.formatted_ds = {'train': rows, 'validation': rows} in its __init__",
            )
        task = getattr(made, "task_spec", None)
        return cls(
            splits={name: rows for name, rows in splits.items() if rows is not None},
            prompt=_text(task, "prompt"),
            system_prompt=_text(task, "system_prompt"),
        )

    def write(self, split: str) -> Path | None:
        """A file with the rows of a split, None when it has none; the same rows are always the same file.

        Raises:
            DataError: a row is no JSON object.
        """
        if split not in self.splits:
            return None
        folder = cache_folder() / "rows"
        folder.mkdir(parents=True, exist_ok=True)
        state = hashlib.sha256()
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            spool = Path(scratch, "rows")
            with open(spool, "wb") as file:
                for number, row in enumerate(self.splits[split], start=1):
                    line = _line(row, f"{split}, row {number}")
                    state.update(line)
                    file.write(line)
                file.flush()
                os.fsync(file.fileno())
            target = folder / f"{state.hexdigest()}.jsonl"
            os.replace(spool, target)
        return target


def _class_at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        fix = "give package.module.Class, and see that PYTHONPATH has the folder of the package"
        raise ConfigError(f"cannot import {module}: {error}", where="data.dataset_name", fix=fix) from error
    if not hasattr(imported, name):
        near = did_you_mean(name, [known for known, value in vars(imported).items() if inspect.isclass(value)])
        raise ConfigError(f"{module} has no {name!r}", where="data.dataset_name", fix=near)
    return getattr(imported, name)


def _arguments(made: Any, path: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Of ``keys``, those that are set and that the class takes."""
    parameters = inspect.signature(made).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = {key: value for key, value in keys.items() if value is not None and (takes_all or key in named)}
    needed = {p.name for p in parameters if p.name in named and p.default is p.empty}
    missing = sorted(needed - given.keys())
    if missing:
        raise ConfigError(
            f"{path} asks for {', '.join(missing)}, which nothing sets",
            where="data.dataset_name",
            fix="set the keys of these names in data.train, or give the parameters defaults",
        )
    return given


def _text(task: Any, name: str) -> str | None:
    value = getattr(task, name, None)
    return value if isinstance(value, str) and value else None


def _line(row: Any, where: str) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"the row of a dataset class is no JSON: {error}", where=where) from error
