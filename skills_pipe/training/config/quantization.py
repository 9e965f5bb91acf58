"""Frozen weights in 4 bit below adapters, as the configuration asks for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.adapters import NEVER, leaves
from skills_pipe.training.config.schema.policy import PolicyConfig

QUANTIZATION_KEY: Final = "policy.dtensor_cfg.quantization"

BLOCK: Final = 64
"""Weights of a row that share a scale, as in bitsandbytes and in Dettmers et al. 2023 (arXiv:2305.14314)."""

SCALES_BLOCK: Final = 256
"""Scales that share one of their own where they are in 8 bit."""


@dataclass(frozen=True, kw_only=True)
class QuantizationSpec:
    """How a matrix of the base model is kept.

    Attributes:
        values: name of the 16 values that 4 bits stand for.
        double: scales are kept in 8 bit, with scales of their own.
    """

    values: Literal["nf4", "fp4"] = "nf4"
    double: bool = False

    def __str__(self) -> str:
        return f"{self.values}, blocks of {BLOCK}, scales in {'8 bit' if self.double else 'float32'}"

    def bytes_of(self, inputs: int, outputs: int) -> int:
        """What a matrix ``[outputs, inputs]`` takes, but for the scales of scales, which every rank has."""
        return outputs * (inputs // 2 + inputs // BLOCK * (1 if self.double else 4))

    def bytes_everywhere(self, inputs: int, outputs: int) -> int:
        """What every rank has of a matrix: the scales of its scales, and their mean."""
        return 4 * (-(-outputs * inputs // BLOCK // SCALES_BLOCK) + 1) if self.double else 0


def quantization_spec(policy: PolicyConfig) -> QuantizationSpec | None:
    """How the base model is kept; None: in ``policy.precision``."""
    section = policy.dtensor_cfg.quantization
    if not (policy.dtensor_cfg.enabled and section.load_in_4bit):
        return None
    return QuantizationSpec(values=section.bnb_4bit_quant_type, double=section.bnb_4bit_use_double_quant)


def is_quantized(linear: str) -> bool:
    """Whether the linear layer of this full name is kept in 4 bit; output layers and routers never are."""
    return linear.rpartition(".")[2] not in NEVER


def uneven(layers: Iterable[tuple[str, tuple[int, int]]]) -> list[ConfigError]:
    """An error that names the linear layers whose rows are no whole blocks; empty where there are none.

    Args:
        layers: full names, and inputs and outputs.
    """
    widths = {name: inputs for name, (inputs, _) in layers if inputs % BLOCK and is_quantized(name)}
    if not widths:
        return []
    return [
        ConfigError(
            f"the rows of {', '.join(leaves(widths))} have {' and '.join(map(str, sorted(set(widths.values()))))} "
            f"weights, which are no whole blocks of {BLOCK}",
            where=f"{QUANTIZATION_KEY}.load_in_4bit",
            fix="set it to false: ranks share the weights row by row",
        )
    ]


def check_installed(policy: PolicyConfig) -> None:
    """Refuse 4 bit where what packs and unpacks the weights is not installed.

    Raises:
        ConfigError: says how to install it.
    """
    if quantization_spec(policy) is not None and find_spec("bitsandbytes") is None:
        raise not_installed()


def not_installed() -> ConfigError:
    """bitsandbytes is not there."""
    return ConfigError(
        "weights in 4 bit need bitsandbytes, which is not installed",
        where=f"{QUANTIZATION_KEY}.load_in_4bit",
        fix='run: pip install "skills_pipe[qlora]"',
    )
