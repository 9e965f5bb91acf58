"""Both layouts of datasets become one list per use.

NeMo-RL 0.5 has flat keys (``data.train_data_path``), later releases one section per dataset (``data.train``), or a
list of them. Where a configuration has both, the one that was set later counts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.dataset_names import (
    UNNAMED,
    advice_for,
    canonical_name,
    is_class,
    kind_of,
    named_by,
)
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.schema.data import ChatTokens, DataConfig, DataSection, DatasetConfig, DatasetSection

_BUILT_IN: Final = {
    "input_key": "input",
    "output_key": "output",
    "chat_key": "messages",
    "tool_key": "tools",
    "processor": "sft_processor",
    "weight": 1.0,
    "prompt_template": "{input} {output}",
    "truncation_field": "input",
    "truncation_method": "right",
    "chat_prompt_tokens": ChatTokens(),
}

Values = dict[str, Any]


class Datasets:
    """Reads the ``data`` section as it was written.

    Attributes:
        problems: settings that contradict each other.
        missing: what nobody has set and no default can stand for.
    """

    def __init__(self, section: DataSection, origins: Origins) -> None:
        self.problems: list[ConfigError] = []
        self.missing: list[ConfigError] = []
        self._section = section
        self._origins = origins

    def config(self, *, seed: int, longest: int) -> DataConfig:
        """The canonical section; ``seed`` and ``longest`` (tokens) stand in where it says nothing of its own."""
        section = self._section
        shared = _shared(section, seed)
        train_split = section.train_split or section.split
        train = self._datasets(_Use(name="train", path_key="train_data_path", split=train_split), shared)
        held_out = self._datasets(_Use(name="validation", path_key="val_data_path", split=section.val_split), shared)
        by_name = not train and not _needs_path(shared["dataset_name"])
        if by_name:
            train = (self._dataset("data", shared | {"split": train_split}),)
        if not held_out and (by_name or _is_name_of(train, section.train_data_path)):
            held_out = self._own_validation(shared | {"dataset_name": train[0].dataset_name})
        train, held_out = _with_holdout(train, held_out, asked=shared["split_validation_size"] is not None)
        self._check_names(train, held_out)
        if not train:
            self.missing.append(
                ConfigError("there is no training data", where="data.train_data_path", fix="name a file of rows")
            )
        same = {field.name for field in dataclasses.fields(DataConfig)} - {"train", "validation"}
        values = {name: getattr(section, name) for name in same}
        values["max_input_seq_length"] = section.max_input_seq_length or longest
        return DataConfig(train=train, validation=held_out, **values)

    def _own_validation(self, values: Values) -> tuple[DatasetConfig, ...]:
        """The split for validation of a dataset by name; nothing where it has none."""
        split = self._section.val_split or kind_of(values["dataset_name"]).validation_split
        return (self._dataset("data", values | {"split": split}),) if split else ()

    def _datasets(self, use: _Use, shared: Values) -> tuple[DatasetConfig, ...]:
        nested = getattr(self._section, use.name)
        listed = nested if isinstance(nested, tuple) else (nested,)
        own = [values for section in listed if (values := _set_keys(section))]
        path = getattr(self._section, use.path_key) or None
        is_source = len(own) > 1 or any(values.keys() & {"data_path", "dataset_name"} for values in own)
        if path is None or (is_source and self._section_counts(use)):
            return self._from_sections(use, [shared | values for values in own])
        refined = {} if is_source or not own else own[0]
        flat = {"data_path": path} | ({"split": use.split} if use.split else {})
        return (self._dataset(f"data.{use.name}", shared | refined | flat),)

    def _section_counts(self, use: _Use) -> bool:
        """Whether the section of a use was set later than its flat path."""
        flat, nested = f"data.{use.path_key}", f"data.{use.name}"
        ranks = self._origins.rank(flat), self._origins.rank(nested)
        if ranks[0] == ranks[1]:
            places = f"{self._origins.where(flat)} and {self._origins.where(nested)}"
            self.problems.append(
                ConfigError(f"{flat} and {nested} say different things", where=places, fix="set one of them")
            )
        return ranks[1] > ranks[0]

    def _from_sections(self, use: _Use, sections: list[Values]) -> tuple[DatasetConfig, ...]:
        many = len(sections) > 1
        places = [f"data.{use.name}.{index}" if many else f"data.{use.name}" for index in range(len(sections))]
        datasets = tuple(self._dataset(place, values) for place, values in zip(places, sections, strict=True))
        for place, dataset in zip(places, datasets, strict=True):
            if dataset.data_path is None and _needs_path(dataset.dataset_name):
                self.missing.append(
                    ConfigError(f"{place} names no data", where=self._origins.where(place), fix="set its data_path")
                )
        return datasets

    def _dataset(self, place: str, values: Values) -> DatasetConfig:
        """A dataset with what its name says, and what is built in, where nobody has said anything."""
        values = values | {"data_path": values["data_path"] or None}
        given = {key: value for key, value in values.items() if value is not None}
        written, path = given.get("dataset_name"), given.get("data_path")
        if written is None:
            name, keys = (named_by(path) if path else None) or (UNNAMED, {})
        else:
            name = canonical_name(written) or self._unknown(place, written)
            keys = kind_of(name).keys
        if path is not None and _is_name(path) and canonical_name(path) == name:
            del given["data_path"]
        filled = values | _BUILT_IN | dict(keys) | given | {"dataset_name": name}
        return DatasetConfig(**filled | {"name": filled["name"] or _own_name(filled)})

    def _unknown(self, place: str, name: str) -> str:
        """Tells of a name that is unknown; returns one to go on with."""
        nested = f"{place}.dataset_name"
        where = self._origins.where(nested if self._origins.rank(nested) else "data.dataset_name")
        problem = ConfigError(f"there is no dataset {name!r}", where=where, fix=advice_for(name))
        if str(problem) not in map(str, self.problems):
            self.problems.append(problem)
        return UNNAMED

    def _check_names(self, train: tuple[DatasetConfig, ...], held_out: tuple[DatasetConfig, ...]) -> None:
        """Each validation set has a name of its own, those that are set aside from training data too."""
        split = [dataset for dataset in train if dataset.split_validation_size]
        names = [dataset.name for dataset in (*held_out, *split)]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            self.problems.append(
                ConfigError(
                    f"{names.count(name)} validation datasets are called {name!r}",
                    where=self._origins.where("data.validation"),
                    fix="give each a name of its own, such as {name: math, data_path: ...}",
                )
            )


@dataclass(frozen=True, kw_only=True)
class _Use:
    """What datasets are for: the section of that name, and the flat keys for a single one."""

    name: str
    path_key: str
    split: str | None


def _shared(section: DataSection, seed: int) -> Values:
    """What a dataset is unless it says otherwise: from ``data.default``, else from the flat keys, else built in."""
    values: Values = {field.name: None for field in dataclasses.fields(DatasetConfig)}
    flat = values.keys() - {"data_path", "split"}
    found = {name: getattr(section, name, None) for name in flat}
    given = {name: value for name, value in found.items() if value is not None}
    return values | {"seed": seed} | given | _set_keys(section.default)


def _is_name_of(datasets: tuple[DatasetConfig, ...], path: str | None) -> bool:
    """Whether a path is no path, but the name of this one dataset."""
    is_name = path is not None and _is_name(path)
    return is_name and [canonical_name(path or "")] == [dataset.dataset_name for dataset in datasets]


def _is_name(path: str) -> bool:
    """Whether a path is the name of a dataset that says where its rows are."""
    named = named_by(path)
    return named is not None and "data_path" in named[1]


def _needs_path(name: str | None) -> bool:
    known = canonical_name(name or UNNAMED)
    return known is not None and not is_class(known) and "data_path" not in kind_of(known).keys


def _own_name(values: Values) -> str:
    """What the metrics of a dataset are called: by its file, else by its dataset."""
    path = Path(values["data_path"] or values["dataset_name"])
    return path.name.split(".")[0] or path.name if values["data_path"] else path.name.rpartition(".")[2]


def _with_holdout(
    train: tuple[DatasetConfig, ...], held_out: tuple[DatasetConfig, ...], *, asked: bool
) -> tuple[tuple[DatasetConfig, ...], tuple[DatasetConfig, ...]]:
    """Rows are set aside from training data only; by default so only where there is no other validation data."""
    if held_out and not asked:
        train = tuple(
            replace(dataset, split_validation_size=None)
            if dataset.split_validation_size == kind_of(dataset.dataset_name).keys.get("split_validation_size")
            else dataset
            for dataset in train
        )
    return train, tuple(replace(dataset, split_validation_size=None) for dataset in held_out)


def _set_keys(section: DatasetSection | None) -> Values:
    """What a dataset section says, without what it leaves out."""
    return {} if section is None else {name: value for name, value in vars(section).items() if value is not None}
