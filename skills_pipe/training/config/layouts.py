"""The layouts that users bring become the one that programs read.

NeMo-RL 0.5 has flat dataset keys (``data.train_data_path``), later releases one section per dataset (``data.train``);
some keys have had two names, some values two spellings. After this, there is one of each.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import replace
from typing import Any, Final

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.schema.data import DataConfig, DataSection, DatasetConfig, DatasetSection
from skills_pipe.training.config.schema.policy import (
    MilestonesConfig,
    ObjectConfig,
    PolicyConfig,
    SchedulerConfig,
    TokenizerConfig,
)
from skills_pipe.training.config.schema.training import TrainingConfig

FROM_FILES: Final = ("ResponseDataset", "openai_format")
"""Datasets that are files of rows; any other name is a dataset that knows where its rows are."""
_OTHER_NAMES: Final = {"prompt_response_dataset": "ResponseDataset"}


class Canonical:
    """Turns a configuration as it was written into the layout that programs read.

    Attributes:
        problems: settings that contradict each other.
        missing: what nobody has set and no default can stand for.
    """

    def __init__(self, origins: Origins) -> None:
        self.problems: list[ConfigError] = []
        self.missing: list[ConfigError] = []
        self._origins = origins

    def config(self, written: TrainingConfig) -> TrainingConfig:
        """The canonical configuration; ``written.data`` and ``written.policy.scheduler`` are as they were written."""
        metric = _metric_name(written.checkpointing.metric_name)
        sft = written.sft
        return replace(
            written,
            sft=replace(
                sft,
                max_num_epochs=1 if sft.max_num_epochs is None and sft.max_num_steps is None else sft.max_num_epochs,
                val_at_end=(metric or "").startswith("val:") if sft.val_at_end is None else sft.val_at_end,
            ),
            checkpointing=replace(written.checkpointing, metric_name=metric),
            policy=self._policy(written.policy),
            data=self._data(written.data, written),
        )

    def _policy(self, policy: PolicyConfig) -> PolicyConfig:
        peft = policy.megatron_cfg.peft
        peft = replace(
            peft,
            lora_A_init_method=peft.lora_A_init or peft.lora_A_init_method,
            lora_B_init_method=peft.lora_B_init or peft.lora_B_init_method,
            lora_A_init=None,
            lora_B_init=None,
        )
        return replace(
            policy,
            tokenizer=self._tokenizer(policy.tokenizer, policy.model_name),
            max_grad_norm=policy.max_grad_norm or None,
            make_sequence_length_divisible_by=policy.make_sequence_length_divisible_by or _needed_divisor(policy),
            megatron_cfg=replace(policy.megatron_cfg, peft=peft),
            scheduler=self._scheduler(policy.scheduler),
        )

    def _tokenizer(self, tokenizer: TokenizerConfig, model_name: str) -> TokenizerConfig:
        template = tokenizer.chat_template
        if tokenizer.custom_template is not None:
            where = "policy.tokenizer.chat_template"
            if self._origins.rank(where) > 0 and template != tokenizer.custom_template:
                self._contradiction("policy.tokenizer.custom_template", where)
            template = tokenizer.custom_template
        return replace(tokenizer, name=tokenizer.name or model_name, chat_template=template, custom_template=None)

    def _scheduler(self, written: Any) -> SchedulerConfig | None:
        if written is None or isinstance(written, SchedulerConfig):
            return written
        items = (written,) if isinstance(written, ObjectConfig) else written
        parts = tuple(item for item in items if isinstance(item, ObjectConfig))
        milestones = tuple(step for item in items if isinstance(item, MilestonesConfig) for step in item.milestones)
        if not parts:
            return None
        if len(milestones) != len(parts) - 1:
            self.problems.append(
                ConfigError(
                    f"policy.scheduler has {len(parts)} schedulers and {len(milestones)} milestones",
                    where=self._origins.where("policy.scheduler"),
                    fix="end the list with milestones: [...], one step for each scheduler but the first",
                )
            )
        return SchedulerConfig(parts=parts, milestones=milestones)

    def _data(self, written: Any, config: TrainingConfig) -> DataConfig:
        section: DataSection = written
        shared = _shared(section, config.sft.seed)
        train = self._datasets(section, shared, "train", section.train_data_path, section.train_split or section.split)
        validation = self._datasets(section, shared, "validation", section.val_data_path, section.val_split)
        by_name = shared["dataset_name"] not in FROM_FILES
        if not train and by_name:
            train = (_dataset(shared, split=section.train_split or section.split),)
            validation = validation or (_dataset(shared, split=section.val_split),)
        if not train:
            self.missing.append(
                ConfigError("there is no training data", where="data.train_data_path", fix="name a file of rows")
            )
        same = {field.name for field in dataclasses.fields(DataConfig)} - {"train", "validation"}
        values = {name: getattr(section, name) for name in same}
        values["max_input_seq_length"] = section.max_input_seq_length or config.policy.max_total_sequence_length
        return DataConfig(train=train, validation=validation, **values)

    def _datasets(
        self, section: DataSection, shared: dict[str, Any], use: str, path: str | None, split: str | None
    ) -> tuple[DatasetConfig, ...]:
        """Datasets for one use, from the flat path or from the section, whichever was set later."""
        nested = getattr(section, use)
        own = [_set_keys(item) for item in (nested if isinstance(nested, tuple) else (nested,)) if item is not None]
        own = [item for item in own if item]
        flat_key = "data.train_data_path" if use == "train" else "data.val_data_path"
        names_rows = any("data_path" in item or "dataset_name" in item for item in own)
        if path is not None:
            if names_rows:
                ranks = self._origins.rank(flat_key), self._origins.rank(f"data.{use}")
                if ranks[0] == ranks[1]:
                    self._contradiction(flat_key, f"data.{use}")
                own = [{}] if ranks[0] >= ranks[1] else own
                path = path if ranks[0] >= ranks[1] else None
            if path is not None:
                changes = {"data_path": path} | ({"split": split} if split else {})
                return (_dataset(shared, **(own[0] if own else {}) | changes),)
        found = tuple(_dataset(shared, **item) for item in own)
        for index, dataset in enumerate(found):
            if dataset.data_path is None and dataset.dataset_name in FROM_FILES:
                place = f"data.{use}.{index}" if isinstance(nested, tuple) else f"data.{use}"
                self.missing.append(
                    ConfigError(f"{place} names no data", where=self._origins.where(place), fix="set its data_path")
                )
        return found

    def _contradiction(self, one: str, other: str) -> None:
        places = f"{self._origins.where(one)} and {self._origins.where(other)}"
        self.problems.append(
            ConfigError(f"{one} and {other} say different things", where=places, fix="set one of them")
        )


def _shared(section: DataSection, seed: int) -> dict[str, Any]:
    """What a dataset is unless it says otherwise: from ``data.default``, else from the flat keys, else built in."""
    values: dict[str, Any] = {field.name: None for field in dataclasses.fields(DatasetConfig)}
    values |= {"input_key": "input", "output_key": "output", "chat_key": "messages", "tool_key": "tools"}
    values |= {"processor": "sft_processor", "seed": seed}
    flat = values.keys() - {"data_path", "split"}
    values |= {n: v for n in flat if (v := getattr(section, n, None)) is not None}
    values |= _set_keys(section.default)
    values["dataset_name"] = _OTHER_NAMES.get(values["dataset_name"], values["dataset_name"])
    return values


def _dataset(shared: dict[str, Any], **changes: Any) -> DatasetConfig:
    values = shared | changes
    return DatasetConfig(**values | {"dataset_name": _OTHER_NAMES.get(values["dataset_name"], values["dataset_name"])})


def _set_keys(section: DatasetSection | None) -> dict[str, Any]:
    """What a dataset section says, without what it leaves out."""
    return {} if section is None else {name: value for name, value in vars(section).items() if value is not None}


def _metric_name(name: str | None) -> str | None:
    """``val_loss`` is the older spelling of ``val:val_loss``."""
    return f"val:{name}" if name and name.startswith("val_") else name or None


def _needed_divisor(policy: PolicyConfig) -> int:
    """What sequence lengths must be divisible by: context parallelism cuts a sequence in 2 x its size chunks."""
    backend = policy.megatron_cfg if policy.megatron_cfg.enabled else policy.dtensor_cfg
    tensor = (
        policy.megatron_cfg.tensor_model_parallel_size
        if policy.megatron_cfg.enabled
        else policy.dtensor_cfg.tensor_parallel_size
    )
    context = backend.context_parallel_size
    return math.lcm(tensor, 2 * context if context > 1 else 1)
