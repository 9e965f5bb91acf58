"""Both layouts of datasets become one list per use.

NeMo-RL 0.5 has flat keys (``data.train_data_path``), later releases one section per dataset (``data.train``), or a
list of them. Where a configuration has both, the one that was set later counts.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Final

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.schema.data import DataConfig, DataSection, DatasetConfig, DatasetSection

FROM_FILES: Final = ("ResponseDataset", "openai_format")
"""Datasets that are files of rows; any other name is a dataset that knows where its rows are."""
_OTHER_NAMES: Final = {"prompt_response_dataset": "ResponseDataset"}
_BUILT_IN: Final = {
    "input_key": "input",
    "output_key": "output",
    "chat_key": "messages",
    "tool_key": "tools",
    "processor": "sft_processor",
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
        if not train and shared["dataset_name"] not in FROM_FILES:
            train = (_dataset(shared | {"split": train_split}),)
            held_out = held_out or (_dataset(shared | {"split": section.val_split}),)
        if not train:
            self.missing.append(
                ConfigError("there is no training data", where="data.train_data_path", fix="name a file of rows")
            )
        same = {field.name for field in dataclasses.fields(DataConfig)} - {"train", "validation"}
        values = {name: getattr(section, name) for name in same}
        values["max_input_seq_length"] = section.max_input_seq_length or longest
        return DataConfig(train=train, validation=held_out, **values)

    def _datasets(self, use: _Use, shared: Values) -> tuple[DatasetConfig, ...]:
        nested = getattr(self._section, use.name)
        listed = nested if isinstance(nested, tuple) else (nested,)
        own = [values for section in listed if (values := _set_keys(section))]
        path = getattr(self._section, use.path_key)
        is_source = len(own) > 1 or any(values.keys() & {"data_path", "dataset_name"} for values in own)
        if path is None or (is_source and self._section_counts(use)):
            return self._from_sections(use, [shared | values for values in own])
        refined = {} if is_source or not own else own[0]
        flat = {"data_path": path} | ({"split": use.split} if use.split else {})
        return (_dataset(shared | refined | flat),)

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
        datasets = tuple(_dataset(values) for values in sections)
        for index, dataset in enumerate(datasets):
            if dataset.data_path is None and dataset.dataset_name in FROM_FILES:
                place = f"data.{use.name}" if len(datasets) == 1 else f"data.{use.name}.{index}"
                self.missing.append(
                    ConfigError(f"{place} names no data", where=self._origins.where(place), fix="set its data_path")
                )
        return datasets


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
    return values | _BUILT_IN | {"seed": seed} | given | _set_keys(section.default)


def _dataset(values: Values) -> DatasetConfig:
    name = values["dataset_name"]
    return DatasetConfig(**values | {"dataset_name": _OTHER_NAMES.get(name, name)})


def _set_keys(section: DatasetSection | None) -> Values:
    """What a dataset section says, without what it leaves out."""
    return {} if section is None else {name: value for name, value in vars(section).items() if value is not None}
