"""Low-rank adapters as the configuration asks for them: which modules get one, and of what kind.

Both backends have a section of their own, written in their own words; here they become one value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from skills_pipe.errors import ConfigError, did_you_mean
from skills_pipe.training.config.schema.dtensor import LoraConfig
from skills_pipe.training.config.schema.megatron import MegatronPeftConfig
from skills_pipe.training.config.schema.policy import PolicyConfig

FSDP_KEY: Final = "policy.dtensor_cfg.lora_cfg"
MEGATRON_KEY: Final = "policy.megatron_cfg.peft"

FUSED: Final[Mapping[str, tuple[str, ...]]] = {
    "linear_qkv": ("q_proj", "k_proj", "v_proj", "qkv_proj"),
    "linear_proj": ("o_proj",),
    "linear_fc1": ("gate_proj", "up_proj", "gate_up_proj"),
    "linear_fc2": ("down_proj",),
}
"""Megatron's names of layers, of which some are several in Hugging Face's models."""

NEVER: Final = ("lm_head", "embed_out", "router")
"""Last names of linear layers that get no adapter: the output layer, which may be tied, and routers."""


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """Adapters of one model: ``y = W x + scale * B(A x)`` instead of ``y = W x``, with W as it was.

    Attributes:
        key: the section that asks for them.
        targets: patterns of modules; empty: all linear layers.
        excluded: patterns of modules that get none; only where ``targets`` is empty.
        dim: rows of A and columns of B.
        alpha: ``scale`` is ``alpha / dim``, or ``alpha / sqrt(dim)`` where ``rank_stabilised``
            (Kalajdzievski 2023, arXiv:2312.03732).
        dropout: probability; where it strikes is ``dropout_position``: ``pre`` before A, ``post`` after B.
        initial: of A: ``xavier`` (normal) or ``uniform`` (Kaiming's, as a linear layer starts); B is zero.
        rank_stabilised: see ``alpha``.
        decomposed: rows of ``W + scale * B A`` have lengths of their own, which are trained (DoRA: Liu et al. 2024,
            arXiv:2402.09353).
    """

    key: str = FSDP_KEY
    targets: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    dim: int
    alpha: float
    dropout: float = 0.0
    dropout_position: Literal["pre", "post"] = "post"
    initial: Literal["xavier", "uniform"] = "xavier"
    rank_stabilised: bool = False
    decomposed: bool = False

    @property
    def scale(self) -> float:
        """Factor on what the adapter adds."""
        return self.alpha / (math.sqrt(self.dim) if self.rank_stabilised else self.dim)

    def choose(self, linear: Iterable[str]) -> tuple[str, ...]:
        """Those of the linear layers with these full names that get an adapter, in their order.

        Raises:
            ConfigError: a pattern matches no layer, one asks for the output layer, or none is left.
        """
        names = tuple(linear)
        self._check_patterns(names)
        chosen = tuple(name for name in names if self.wants(name))
        if not chosen:
            raise ConfigError(
                "no linear layer of the model is left for an adapter",
                where=self.key,
                fix=f"choose among {_listing(_adaptable(names))}",
            )
        return chosen

    def wants(self, name: str) -> bool:
        """Whether the linear layer of this full name gets an adapter."""
        if _leaf(name) in NEVER:
            return False
        if self.targets:
            return any(matches(pattern, name) for pattern in self.targets)
        return not any(matches(pattern, name) for pattern in self.excluded)

    def _check_patterns(self, names: tuple[str, ...]) -> None:
        for field, patterns in (("target_modules", self.targets), ("exclude_modules", self.excluded)):
            for pattern in patterns:
                found = [name for name in names if matches(pattern, name)]
                if not found:
                    known = _adaptable(names)
                    raise ConfigError(
                        f"{pattern!r} matches no linear layer of the model",
                        where=f"{self.key}.{field}",
                        fix=did_you_mean(_leaf(pattern), known) or f"choose among {_listing(known)}",
                    )
                kept_out = [name for name in found if _leaf(name) in NEVER]
                if field == "target_modules" and kept_out and "*" not in pattern:
                    raise ConfigError(
                        f"{kept_out[0]} gets no adapter: output layers may be tied to the embedding, routers choose, "
                        "and what serves adapters does not take one there",
                        where=f"{self.key}.{field}",
                        fix="leave it out, or train all weights",
                    )


def adapter_spec(policy: PolicyConfig) -> AdapterSpec | None:
    """The adapters that the section of the enabled backend asks for; None: all weights are trained."""
    if policy.megatron_cfg.enabled:
        return _of_megatron(policy.megatron_cfg.peft) if policy.megatron_cfg.peft.enabled else None
    return _of_fsdp(policy.dtensor_cfg.lora_cfg) if policy.dtensor_cfg.lora_cfg.enabled else None


def matches(pattern: str, name: str) -> bool:
    """Whether ``pattern`` means the module ``name``: its last name, its full name, or that with ``*`` for anything.

    Megatron's names of layers stand for those of Hugging Face.
    """
    head, dot, leaf = pattern.rpartition(".")
    return any(_matches(head + dot + one, name) for one in FUSED.get(leaf, (leaf,)))


def leaves(names: Iterable[str]) -> tuple[str, ...]:
    """The last names of modules, each once."""
    return tuple(dict.fromkeys(_leaf(name) for name in names))


def _of_fsdp(section: LoraConfig) -> AdapterSpec:
    targets = section.target_modules
    if section.match_all_linear:
        targets = ()
    elif not (targets or section.exclude_modules):
        targets = ("*_proj",)
    return AdapterSpec(
        key=FSDP_KEY,
        targets=targets,
        excluded=section.exclude_modules if not targets else (),
        dim=section.dim,
        alpha=section.alpha,
        dropout=section.dropout,
        dropout_position=section.dropout_position,
        initial=section.lora_A_init,
        rank_stabilised=section.use_rslora,
        decomposed=section.use_dora,
    )


def _of_megatron(section: MegatronPeftConfig) -> AdapterSpec:
    return AdapterSpec(
        key=MEGATRON_KEY,
        targets=section.target_modules,
        excluded=section.exclude_modules,
        dim=section.dim,
        alpha=section.alpha,
        dropout=section.dropout,
        dropout_position=section.dropout_position,
        initial=section.lora_A_init_method,
    )


def _matches(pattern: str, name: str) -> bool:
    if pattern == _leaf(name):
        return True
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), name) is not None


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _adaptable(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(leaf for leaf in leaves(names) if leaf not in NEVER)


def _listing(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing: it has none"
