"""What must hold between the keys of adapters and the others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.adapters import FSDP_KEY, MEGATRON_KEY, adapter_spec
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.quantization import QUANTIZATION_KEY
from skills_pipe.training.config.schema import TrainingConfig


def broken_adapter_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Every rule about adapters that a canonical configuration breaks."""
    for key, what, fix in (
        *_sections(config),
        *_switched_off(config, origins),
        *_patterns(config, origins),
        *_checkpoints(config),
    ):
        yield ConfigError(what, where=origins.where(key), fix=fix)


def adapters_without_effect(config: TrainingConfig) -> list[tuple[bool, str]]:
    """Settings of adapters that change nothing: whether each is set, and a sentence about it."""
    lora = config.policy.dtensor_cfg.lora_cfg
    return [
        (
            lora.enabled and lora.match_all_linear and bool(lora.target_modules),
            f"{FSDP_KEY}.target_modules: all linear layers get an adapter; set match_all_linear=false to choose",
        ),
    ]


_Broken = tuple[str, str, str]

_BY_FILE = 1
"""The rank of what a file sets; that of an override is higher."""


def _sections(config: TrainingConfig) -> Iterator[_Broken]:
    """The section of the backend that is off would be ignored."""
    policy = config.policy
    lora, peft = policy.dtensor_cfg.lora_cfg, policy.megatron_cfg.peft
    if lora.enabled and not policy.dtensor_cfg.enabled:
        yield (
            f"{FSDP_KEY}.enabled",
            f"{FSDP_KEY} is for the fsdp backend, which is off",
            f"set {MEGATRON_KEY}.enabled instead",
        )
    if peft.enabled and not policy.megatron_cfg.enabled:
        yield (
            f"{MEGATRON_KEY}.enabled",
            f"{MEGATRON_KEY} is for the megatron backend, which is off",
            f"set {FSDP_KEY}.enabled instead",
        )
    if lora.enabled and policy.dtensor_cfg.enabled:
        yield from _fsdp(config)


def _switched_off(config: TrainingConfig, origins: Origins) -> Iterator[_Broken]:
    """Overrides of a section that is off: who sets a rank and forgets the switch would train all weights.

    A file may well describe adapters that are off, and an override may switch off those of a file.
    """
    fsdp = config.policy.dtensor_cfg
    for key, section, switch in (
        (FSDP_KEY, fsdp.lora_cfg, "enabled"),
        (QUANTIZATION_KEY, fsdp.quantization, "load_in_4bit"),
    ):
        if getattr(section, switch) or origins.rank(f"{key}.{switch}") > _BY_FILE or not fsdp.enabled:
            continue
        for field in fields(section):
            if origins.rank(f"{key}.{field.name}") > _BY_FILE:
                yield (
                    f"{key}.{field.name}",
                    f"{key}.{field.name} has no effect: {key}.{switch} is false",
                    f"add ++{key}.{switch}=true, or leave it out",
                )


def _fsdp(config: TrainingConfig) -> Iterator[_Broken]:
    fsdp = config.policy.dtensor_cfg
    if not fsdp._v2:
        yield (
            "policy.dtensor_cfg._v2",
            "NeMo-RL's first version of this backend has no adapters",
            "set policy.dtensor_cfg._v2=true, or train all weights",
        )
    if fsdp.lora_cfg.dropout > 0 and fsdp.tensor_parallel_size > 1:
        yield (
            f"{FSDP_KEY}.dropout",
            f"{FSDP_KEY}.dropout: ranks that share a layer would each drop out something else",
            "set it to 0, or policy.tensor_model_parallel_size=1",
        )


def _patterns(config: TrainingConfig, origins: Origins) -> Iterator[_Broken]:
    lora, peft = config.policy.dtensor_cfg.lora_cfg, config.policy.megatron_cfg.peft
    for key, section, all_linear in ((FSDP_KEY, lora, lora.match_all_linear), (MEGATRON_KEY, peft, False)):
        if not section.enabled:
            continue
        if all_linear and section.target_modules and origins.rank(f"{key}.match_all_linear") == 0:
            yield (
                f"{key}.target_modules",
                f"{key}.target_modules chooses layers, and match_all_linear, true by default, all of them",
                f"set {key}.match_all_linear=false",
            )
        if section.target_modules and section.exclude_modules and not all_linear:
            yield (
                f"{key}.exclude_modules",
                f"{key} has both target_modules and exclude_modules",
                "keep one of them: what is excluded is excluded from all linear layers",
            )
        if section.dropout >= 1:
            yield f"{key}.dropout", f"{key}.dropout is {section.dropout:g}, and must be less than 1", "try 0.05"


def _checkpoints(config: TrainingConfig) -> Iterator[_Broken]:
    settings = config.checkpointing
    if settings.is_peft and adapter_spec(config.policy) is None:
        yield (
            "checkpointing.is_peft",
            "checkpointing.is_peft is set, and no adapters are trained",
            f"set {FSDP_KEY}.enabled=true, or leave it out: checkpoints of adapters hold them alone",
        )
    if settings.peft_config is not None:
        yield (
            "checkpointing.peft_config",
            "checkpointing.peft_config is written from the adapters that are trained",
            f"leave it out, and set {FSDP_KEY}",
        )
