"""Weights in 4 bit in the configuration: what is asked for, what does not go together, what must be installed."""

from __future__ import annotations

import sys

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config
from skills_pipe.training.config.load import ConfigErrors
from skills_pipe.training.config.quantization import (
    QuantizationSpec,
    check_installed,
    quantization_spec,
)

NEEDED = ["policy.model_name=/models/base", "data.train_data_path=a.jsonl"]
SECTION = "policy.dtensor_cfg.quantization"
ADAPTERS = "policy.dtensor_cfg.lora_cfg.enabled=true"
ENABLED = [*NEEDED, ADAPTERS, f"{SECTION}.load_in_4bit=true"]


def policy(*overrides):
    return load_config(overrides=[*ENABLED, *overrides]).policy


def test_off_by_default():
    assert quantization_spec(load_config(overrides=[*NEEDED, ADAPTERS]).policy) is None


def test_what_is_asked_for():
    assert quantization_spec(policy()) == QuantizationSpec(values="nf4", double=False)
    asked = [f"{SECTION}.bnb_4bit_quant_type=fp4", f"{SECTION}.bnb_4bit_use_double_quant=true"]
    # A section as it is written for bitsandbytes.
    written = [f"{SECTION}.bnb_4bit_compute_dtype=bfloat16", f"{SECTION}.bnb_4bit_quant_storage=bfloat16"]
    found = quantization_spec(policy(*asked, *written, "policy.precision=bfloat16"))
    assert found == QuantizationSpec(values="fp4", double=True)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy.dtensor_cfg.lora_cfg.enabled=false"], r"keeps weights that are not trained, and all weights are"),
        (
            ["policy.dtensor_cfg.enabled=false", "policy.megatron_cfg.enabled=true"],
            r"load_in_4bit is for the fsdp backend, which is off",
        ),
        ([f"{SECTION}.bnb_4bit_compute_dtype=float32"], r"is float32, and policy\.precision, .* is bfloat16"),
        (["policy.tensor_model_parallel_size=2"], r"a base in 4 bit is not proven where ranks share layers"),
        (["policy.expert_model_parallel_size=2"], r"a base in 4 bit is not proven where ranks share layers"),
        ([f"{SECTION}.bnb_4bit_quant_type=int4"], r"nf4"),
        ([f"{SECTION}.load_in_8bit=true"], r"load_in_8bit"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides, message):
    with pytest.raises((ConfigError, ConfigErrors), match=message):
        policy(*overrides)


def test_without_bitsandbytes_one_line_says_what_to_do(monkeypatch):
    check_installed(policy())
    # The way in which python itself marks a module that is not to be found.
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"need bitsandbytes, which is not installed.*skills_pipe\[qlora\]") as caught:
        check_installed(policy())
    assert "\n" not in str(caught.value)
    check_installed(load_config(overrides=[*NEEDED, ADAPTERS]).policy)


def test_bytes_of_a_matrix():
    """4 bits each, and for 64 of them a float32, or a byte and its part of a float32."""
    assert QuantizationSpec().bytes_of(4096, 1024) == 4096 * 1024 * (4 + 32 / 64) / 8
    double = QuantizationSpec(double=True)
    assert double.bytes_of(4096, 1024) == 4096 * 1024 * (4 + 8 / 64) / 8
    assert double.bytes_everywhere(4096, 1024) == 4096 * 1024 * (32 / 64 / 256) / 8 + 4
