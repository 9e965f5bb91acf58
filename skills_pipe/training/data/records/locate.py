"""What a path in a configuration means: files here, or a dataset of the hub."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from skills_pipe.errors import DataError
from skills_pipe.training.data.records.hub import HubDataset, is_hub_id
from skills_pipe.training.data.records.splits import CARD, Wanted, files_of_split

_MAGIC: Final = re.compile(r"[*?\[]")
_SAVED: Final = "state.json"
_SAVED_SPLITS: Final = "dataset_dict.json"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where rows are, as a configuration says it.

    Attributes:
        path: a file; a folder of files, or one that ``datasets`` saved; a pattern such as ``rows-*.jsonl``; the id of a
            dataset on the hub.
        split: see :class:`splits.Wanted`; a single file has none.
        otherwise: see :class:`splits.Wanted`.
        subset: see :class:`splits.Wanted`.
        revision: of a dataset on the hub.
        cache: see :class:`hub.HubDataset`.
        only: see :class:`splits.Wanted`.
    """

    path: str
    split: str | None = None
    otherwise: str = "train"
    subset: str | None = None
    revision: str | None = None
    cache: str | None = None
    only: str | None = None

    def files(self) -> list[Path]:
        """The files of rows, in order; downloaded where they are on the hub.

        Raises:
            DataError: there are none.
        """
        path = Path(self.path)
        if path.is_file():
            return [path]
        if path.is_dir():
            return self._in_folder(path)
        if _MAGIC.search(self.path):
            return self._matching()
        if is_hub_id(self.path):
            return HubDataset(repo=self.path, revision=self.revision, cache=self.cache).download(self._wanted)
        fix = "correct the path, or give the id of a data set on the hub, org/name"
        raise DataError("there is no such data file", where=self.path, fix=fix)

    @property
    def _wanted(self) -> Wanted:
        return Wanted(split=self.split, otherwise=self.otherwise, subset=self.subset, name=self.path, only=self.only)

    def _matching(self) -> list[Path]:
        pattern = Path(self.path)
        start = Path(pattern.anchor)
        found = sorted(file for file in start.glob(str(pattern.relative_to(start))) if file.is_file())
        if not found:
            raise DataError("no file fits the pattern", where=self.path)
        return found

    def _in_folder(self, folder: Path) -> list[Path]:
        if (folder / _SAVED).is_file():
            return _saved_files(folder)
        if (folder / _SAVED_SPLITS).is_file():
            # Every split is a folder of its own, with one file or more.
            splits = _json(folder / _SAVED_SPLITS)["splits"]
            names = [f"{split}-00000-of-00001.arrow" for split in splits]
            (chosen,) = files_of_split(names, None, self._wanted)
            return _saved_files(folder / splits[names.index(chosen)])
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        card = folder / CARD
        text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None
        return [folder / name for name in files_of_split(names, text, self._wanted)]


def _saved_files(folder: Path) -> list[Path]:
    """The files of a folder that ``Dataset.save_to_disk`` wrote."""
    return [folder / file["filename"] for file in _json(folder / _SAVED)["_data_files"]]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the folder of a saved dataset is damaged: {error}", where=str(path)) from error
