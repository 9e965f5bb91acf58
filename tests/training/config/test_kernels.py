"""Kernels that are asked for by name where they cannot compute are refused where the configuration is read."""

from __future__ import annotations

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config

NEEDED = ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"]
FLOAT = "policy.precision=float32"


@pytest.mark.parametrize("kernel", ["flash_attn", "varlen_attn"])
def test_kernels_for_half_precision_do_not_compute_in_float32(kernel):
    asked = f"policy.dtensor_cfg.attention_kernel={kernel}"
    with pytest.raises(ConfigError, match=r"computes in half precision, and policy\.precision is float32.*to auto"):
        load_config(None, [*NEEDED, asked, FLOAT])
    load_config(None, [*NEEDED, asked])


@pytest.mark.parametrize("kernel", ["auto", "sdpa"])
def test_what_is_asked_for_without_a_name_is_no_mistake(kernel):
    config = load_config(None, [*NEEDED, f"policy.dtensor_cfg.attention_kernel={kernel}", FLOAT])
    assert config.policy.dtensor_cfg.attention_kernel == kernel
