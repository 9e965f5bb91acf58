"""Experts of which each rank of a group has some; they take the place of a module's class and keep its names."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers import PreTrainedModel

from skills_pipe.training.backends.fsdp.expert_parallel.dispatch import Dispatch, ExpertGroup

EXPERTS: Mapping[str, str] = {"qwen3_moe": "model.layers.*.mlp.experts", "gpt_oss": "model.layers.*.mlp.experts"}
"""Name of the modules that hold all experts of a layer, by ``model_type``; the same families as
:data:`skills_pipe.training.config.parallel.EXPERT_PARALLEL_FAMILIES`."""


class SharedExperts(nn.Module):
    """Mixed into a module of experts in the form of transformers.

    Its parameters are DTensors with the experts in front; ``num_experts`` is the number of those that are here.
    """

    expert_group: ExpertGroup
    num_experts: int

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """``[tokens, width]`` to the sum of what a token's experts make of it, each times its weight.

        Args:
            hidden_states: ``[tokens, width]``, of this rank.
            top_k_index: int64 ``[tokens, k]``, the experts of each token, out of all.
            top_k_weights: ``[tokens, k]``, their weights.
        """
        each = top_k_index.shape[1]
        dispatch = Dispatch.of(top_k_index.flatten(), self.num_experts * self.expert_group.size, self.expert_group)
        arrived = dispatch.go(hidden_states.repeat_interleave(each, dim=0))
        returned = dispatch.come_back(self._computed(arrived, dispatch.experts))
        # Weighted where the token is, so that the router's gradient is there too.
        weighted = returned.unflatten(0, (-1, each)) * top_k_weights.unsqueeze(-1)
        return weighted.sum(dim=1).to(hidden_states.dtype)

    def _computed(self, rows: Tensor, experts: Tensor) -> Tensor:
        """What the experts of this rank make of one row each, by the model's own forward pass."""
        arrived = len(rows)
        if arrived == 0:
            # The weights need a gradient on every rank, else FSDP2 would leave their exchange out on this one.
            rows, experts = rows.new_zeros(1, rows.shape[1]) + rows.sum(), experts.new_zeros(1)
        ones = rows.new_ones(len(rows), 1)
        spread = dict(self._parameters)
        for name, parameter in spread.items():
            self._parameters[name] = _own_part(parameter)  # type: ignore[assignment]
        try:
            computed: Tensor = super().forward(rows, experts.unsqueeze(1), ones)
        finally:
            self._parameters.update(spread)
        return computed[:arrived]


def share_experts(model: PreTrainedModel, group: ExpertGroup) -> None:
    """Leave this rank its experts of every layer of ``model``; before it is sharded by FSDP2.

    Every rank passes the same weights, which may be on the meta device. The model is of a family that has experts, and
    the ranks divide their number: :func:`skills_pipe.training.config.parallel_rules.unshareable`.
    """
    pattern = EXPERTS[model.config.model_type]
    for name, module in list(model.named_modules()):
        if re.sub(r"\.\d+\.", ".*.", name) == pattern:
            _share(module, group)


def _share(module: nn.Module, group: ExpertGroup) -> None:
    for name, parameter in module._parameters.items():
        if parameter is not None:
            part = distribute_tensor(parameter.detach(), group.mesh, [Shard(0)], src_data_rank=None)
            module._parameters[name] = nn.Parameter(part, requires_grad=parameter.requires_grad)
    module.num_experts = module.num_experts // group.size  # type: ignore[operator,assignment]
    module.expert_group = group  # type: ignore[assignment]
    module.__class__ = _mixed(type(module))


def _own_part(parameter: Tensor | None) -> Tensor | None:
    """This rank's experts as a plain tensor, through which gradients go back."""
    if parameter is None:
        return None
    if not isinstance(parameter, DTensor):
        raise TypeError(f"a parameter of shared experts is a {type(parameter).__name__}")
    part: Tensor = parameter.to_local()
    return part


@functools.cache
def _mixed(experts: type[nn.Module]) -> type[nn.Module]:
    """A class that is both, as ``fully_shard`` makes them."""
    return type(f"Shared{experts.__name__}", (SharedExperts, experts), {})
