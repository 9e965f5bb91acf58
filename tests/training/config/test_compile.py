"""What compiled layers do not go together with is refused where the configuration is read."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config

NEEDED = ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"]
COMPILED = "policy.dtensor_cfg.compile=true"
RECOMPUTED = "policy.dtensor_cfg.activation_checkpointing=true"
SELECTIVE = "policy.dtensor_cfg.recompute_granularity=selective"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy.dtensor_cfg.lora_cfg.enabled=true"], r"not proven exact with adapters.*lora_cfg\.enabled=false"),
        (["policy.dtensor_cfg.cpu_offload=true"], r"not proven exact with shards in host memory.*cpu_offload=false"),
        ([RECOMPUTED, SELECTIVE], r"selective recomputation keeps .*cannot be chosen.*set recompute_granularity=full"),
        (
            ["policy.tensor_model_parallel_size=2"],
            r"not proven exact where ranks share layers.*or policy\.tensor_model",
        ),
        (["policy.expert_model_parallel_size=2"], r"not proven exact where ranks share experts.*or policy\.expert_mod"),
    ],
)
def test_what_is_not_proven_is_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(None, [*NEEDED, COMPILED, *overrides])
    load_config(None, [*NEEDED, *overrides])


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [RECOMPUTED],
        [SELECTIVE],
        ["policy.context_parallel_size=2"],
        ["policy.dtensor_cfg.dp_replicate_size=2"],
    ],
)
def test_the_rest_is_accepted(overrides):
    assert load_config(None, [*NEEDED, COMPILED, *overrides]).policy.dtensor_cfg.compile
