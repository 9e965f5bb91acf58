"""How the ranks of a training share the work: sizes that multiply to the number of ranks; arithmetic, without torch.

Ranks are numbered row by row over ``(replicate, shard, context, tensor)``: those of one tensor parallel group are
neighbours, so that they are on one node; those of one copy of the model come next.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm, prod

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.families import ARCHITECTURES
from skills_pipe.training.config.schema.dtensor import DtensorConfig
from skills_pipe.training.config.schema.policy import PolicyConfig

DIMENSIONS = ("replicate", "shard", "context", "tensor")
"""Names of the dimensions of the mesh of ranks, the slowest first."""

TENSOR_PARALLEL_FAMILIES = tuple(family for family in ARCHITECTURES if family != "gpt2")
"""``model_type`` of the models whose layers ranks can share on the fsdp backend, proven equal to one process."""

CONTEXT_PARALLEL_FAMILIES = ARCHITECTURES
"""``model_type`` of the models of which ranks can share each sequence, proven likewise."""

EXPERT_PARALLEL_FAMILIES = ("qwen3_moe", "gpt_oss")
"""``model_type`` of the mixtures of which ranks can share the experts, proven likewise."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How many ranks share each part of the work.

    Attributes:
        replicate: copies of the sharded model (hybrid sharding).
        shard: ranks over which the weights of a copy are sharded, each with documents of its own.
        context: ranks that share each sequence.
        tensor: ranks that share each layer.
        sequence_parallel: outside of attention and MLP the ranks of a tensor parallel group share the sequence too.
        expert: ranks that share the experts of a mixture; of those that share or hold documents of one copy of the
            model, so that it multiplies nothing.
    """

    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1
    sequence_parallel: bool = False
    expert: int = 1

    @classmethod
    def of(cls, config: DtensorConfig, *, ranks: int) -> Layout:
        """The layout that a configuration asks for, on so many ranks.

        Raises:
            ConfigError: the sizes do not divide the ranks.
        """
        together = config.tensor_parallel_size * config.context_parallel_size
        if ranks % together:
            named = _named(tensor=config.tensor_parallel_size, context=config.context_parallel_size)
            raise ConfigError(
                f"{ranks} ranks cannot be divided into groups of {together} ({named})",
                where="policy.tensor_model_parallel_size, policy.context_parallel_size",
                fix="choose sizes whose product divides the number of ranks",
            )
        data = ranks // together
        if data % config.dp_replicate_size:
            raise ConfigError(
                f"{data} data parallel ranks cannot hold {config.dp_replicate_size} copies of the model",
                where="policy.dtensor_cfg.dp_replicate_size",
                fix="choose a divisor of their number",
            )
        copy = data // config.dp_replicate_size * config.context_parallel_size
        if copy % config.expert_parallel_size:
            raise ConfigError(
                f"the {copy} ranks of a copy of the model cannot be divided into groups of "
                f"{config.expert_parallel_size} that share the experts",
                where="policy.expert_model_parallel_size",
                fix=f"choose a divisor of {copy}",
            )
        return cls(
            replicate=config.dp_replicate_size,
            shard=data // config.dp_replicate_size,
            context=config.context_parallel_size,
            tensor=config.tensor_parallel_size,
            # One rank has nothing to share.
            sequence_parallel=config.sequence_parallel and config.tensor_parallel_size > 1,
            expert=config.expert_parallel_size,
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """One for each of :data:`DIMENSIONS`."""
        return tuple(getattr(self, name) for name in DIMENSIONS)

    @property
    def ranks(self) -> int:
        """All of them."""
        return prod(self.sizes)

    @property
    def same_rows(self) -> int:
        """Neighbouring ranks that are given the same documents."""
        return self.context * self.tensor

    @property
    def row_multiple(self) -> int:
        """What divides the tokens of every row: each rank gets two pieces of it, of which its neighbours share each."""
        return (2 * self.context if self.context > 1 else 1) * (self.tensor if self.sequence_parallel else 1)

    def __str__(self) -> str:
        named = _named(replicate=self.replicate, shard=self.shard, context=self.context, tensor=self.tensor)
        experts = f", experts over {self.expert}" if self.expert > 1 else ""
        return named + (" with sequence parallelism" if self.sequence_parallel else "") + experts


def needed_divisor(policy: PolicyConfig) -> int:
    """What sequence lengths must be divisible by: context parallelism cuts a sequence in 2 x its size chunks."""
    fsdp, megatron = policy.dtensor_cfg, policy.megatron_cfg
    tensor = megatron.tensor_model_parallel_size if megatron.enabled else fsdp.tensor_parallel_size
    context = megatron.context_parallel_size if megatron.enabled else fsdp.context_parallel_size
    return lcm(tensor, 2 * context if context > 1 else 1)


def _named(**sizes: int) -> str:
    return " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1) or "1"
