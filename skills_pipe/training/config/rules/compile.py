"""What compiled layers do not go together with."""

from __future__ import annotations

from collections.abc import Iterator

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.schema import TrainingConfig

KEY = "policy.dtensor_cfg.compile"


def broken_compile_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Every rule about compiled layers that a canonical configuration breaks."""
    fsdp = config.policy.dtensor_cfg
    if not fsdp.enabled or not fsdp.compile:
        return
    if fsdp.activation_checkpointing and fsdp.recompute_granularity == "selective":
        yield ConfigError(
            f"{KEY}: what selective recomputation keeps of a layer cannot be chosen within compiled code",
            where=origins.where("policy.dtensor_cfg.recompute_granularity"),
            fix="set recompute_granularity=full, or activation_checkpointing=false: what is quickly computed is then "
            "recomputed within the compiled code",
        )
    for used, what, key in (
        (fsdp.lora_cfg.enabled, "adapters", "policy.dtensor_cfg.lora_cfg.enabled"),
        (fsdp.cpu_offload, "shards in host memory", "policy.dtensor_cfg.cpu_offload"),
    ):
        if used:
            yield ConfigError(
                f"{KEY} is not proven exact with {what}",
                where=origins.where(KEY),
                fix=f"set it to false, or {key}=false",
            )
    for size, shared, key in (
        (fsdp.tensor_parallel_size, "layers", "policy.tensor_model_parallel_size"),
        (fsdp.expert_parallel_size, "experts", "policy.expert_model_parallel_size"),
    ):
        if size > 1:
            yield ConfigError(
                f"{KEY} is not proven exact where ranks share {shared}",
                where=origins.where(KEY),
                fix=f"set it to false, or {key}=1",
            )
