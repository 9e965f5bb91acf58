"""What must hold between the kernels that are asked for by name and the rest."""

from __future__ import annotations

from collections.abc import Iterator

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.origins import Origins
from skills_pipe.training.config.schema import TrainingConfig


def broken_kernel_rules(config: TrainingConfig, origins: Origins) -> Iterator[ConfigError]:
    """Every rule about kernels that a canonical configuration breaks."""
    policy, key = config.policy, "policy.dtensor_cfg.attention_kernel"
    kernel = policy.dtensor_cfg.attention_kernel
    if policy.dtensor_cfg.enabled and kernel in ("flash_attn", "varlen_attn") and policy.precision == "float32":
        yield ConfigError(
            f"{key}={kernel} computes in half precision, and policy.precision is float32",
            where=origins.where(key),
            fix="set it to auto, or policy.precision=bfloat16",
        )
