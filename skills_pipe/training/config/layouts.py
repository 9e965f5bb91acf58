"""The layouts that users bring become the one that programs read.

Datasets are written in two ways, some keys have had two names, some values two spellings. After this, there is one of
each.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.adapters import adapter_spec
from skills_pipe.training.config.datasets import Datasets
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.parallel import needed_divisor
from skills_pipe.training.config.schema.data import DataConfig
from skills_pipe.training.config.schema.policy import (
    MilestonesConfig,
    ObjectConfig,
    PolicyConfig,
    SchedulerConfig,
    TokenizerConfig,
)
from skills_pipe.training.config.schema.training import TrainingConfig


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
            checkpointing=replace(
                written.checkpointing,
                metric_name=metric,
                is_peft=written.checkpointing.is_peft or adapter_spec(written.policy) is not None,
            ),
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
            make_sequence_length_divisible_by=policy.make_sequence_length_divisible_by or needed_divisor(policy),
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
        elif not all(earlier < later for earlier, later in pairwise((0, *milestones))):
            self.problems.append(
                ConfigError(
                    f"policy.scheduler has the milestones {list(milestones)}: one of its schedulers would never run",
                    where=self._origins.where("policy.scheduler"),
                    fix="let them increase, from 1 on",
                )
            )
        return SchedulerConfig(parts=parts, milestones=milestones)

    def _data(self, written: Any, config: TrainingConfig) -> DataConfig:
        datasets = Datasets(written, self._origins)
        data = datasets.config(seed=config.sft.seed, longest=config.policy.max_total_sequence_length)
        self.problems.extend(datasets.problems)
        self.missing.extend(datasets.missing)
        return data

    def _contradiction(self, one: str, other: str) -> None:
        places = f"{self._origins.where(one)} and {self._origins.where(other)}"
        self.problems.append(
            ConfigError(f"{one} and {other} say different things", where=places, fix="set one of them")
        )


def _metric_name(name: str | None) -> str | None:
    """``val_loss`` is the older spelling of ``val:val_loss``."""
    return f"val:{name}" if name and name.startswith("val_") else name or None
