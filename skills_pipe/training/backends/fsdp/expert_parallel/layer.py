"""Experts of which each rank of a group has some; they take the place of a module's class and keep its names."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import Shard, distribute_tensor
from transformers import PreTrainedModel

from skills_pipe.training.backends.fsdp.expert_parallel.dispatch import Dispatch, ExpertGroup
from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup
from skills_pipe.training.backends.fsdp.tensor_parallel.layers import own_parts

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
        if self.expert_group.tensor is not None:
            return self._with_own(hidden_states, top_k_index, top_k_weights)
        each = top_k_index.shape[1]
        returned = self._by_experts(hidden_states.repeat_interleave(each, dim=0), top_k_index.flatten())
        # Weighted where the token is, so that the router's gradient is there too.
        weighted = returned.unflatten(0, (-1, each)) * top_k_weights.unsqueeze(-1)
        return weighted.sum(dim=1).to(hidden_states.dtype)

    def _with_own(self, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
        """:meth:`forward` with those experts only that other ranks with the same tokens do not have."""
        mine, experts = self.expert_group.own(chosen.flatten(), self.num_experts)
        places = mine.nonzero()[:, 0]
        returned = self._by_experts(hidden[places // chosen.shape[1]], experts[places])
        weighted = returned * weights.flatten()[places, None]
        # One place for each choice: added up in one order, unlike index_add on a GPU.
        copies = weighted.new_zeros(chosen.numel(), hidden.shape[1]).index_copy(0, places, weighted)
        return copies.view(*chosen.shape, -1).sum(dim=1).to(hidden.dtype)

    def _by_experts(self, rows: Tensor, experts: Tensor) -> Tensor:
        """What the experts of the ranks that exchange tokens make of one row each, in the order of the rows."""
        if self.expert_group.exchange is None:
            return self._computed(rows, experts)
        dispatch = Dispatch.of(experts, self.num_experts * self.expert_group.size, self.expert_group)
        return dispatch.come_back(self._computed(dispatch.go(rows), dispatch.experts))

    def _computed(self, rows: Tensor, experts: Tensor) -> Tensor:
        """What the experts of this rank make of one row each, by the model's own forward pass."""
        arrived = len(rows)
        if arrived == 0:
            # The weights need a gradient on every rank, else FSDP2 would leave their exchange out on this one.
            rows, experts = rows.new_zeros(1, rows.shape[1]) + rows.sum(), experts.new_zeros(1)
        with own_parts(self):
            computed: Tensor = super().forward(rows, experts.unsqueeze(1), rows.new_ones(len(rows), 1))
        return computed[:arrived]


class SharedMixture(nn.Module):
    """Mixed into what has the experts of a layer, where ranks that have the same tokens share them."""

    tensor_group: TensorGroup

    def forward(self, hidden_states: Tensor) -> Any:
        """Whatever the module gives, with the sum over all ranks of ``[1, all tokens, width]`` in front."""
        computed = super().forward(hidden_states)
        if isinstance(computed, tuple):
            return self.tensor_group.leave(computed[0]), *computed[1:]
        return self.tensor_group.leave(computed)


def share_experts(model: PreTrainedModel, group: ExpertGroup) -> None:
    """Leave this rank its experts of every layer of ``model``; before it is sharded by FSDP2.

    Every rank passes the same weights, which may be on the meta device. The model is of a family that has experts, and
    the ranks divide their number: :func:`skills_pipe.training.config.rules.parallel.unshareable`.
    """
    pattern = EXPERTS[model.config.model_type]
    for name, module in list(model.named_modules()):
        if re.sub(r"\.\d+\.", ".*.", name) == pattern:
            _share(module, group)
            if group.tensor is not None:
                mixture = model.get_submodule(name.rpartition(".")[0])
                mixture.__class__ = _mixed(SharedMixture, type(mixture))
                mixture.tensor_group = group.tensor  # type: ignore[assignment]


def _share(module: nn.Module, group: ExpertGroup) -> None:
    for name, parameter in module._parameters.items():
        if parameter is not None:
            part = distribute_tensor(parameter.detach(), group.mesh, [Shard(0)], src_data_rank=None)
            module._parameters[name] = nn.Parameter(part, requires_grad=parameter.requires_grad)
    module.num_experts = module.num_experts // group.mesh.size()  # type: ignore[operator,assignment]
    module.expert_group = group  # type: ignore[assignment]
    module.__class__ = _mixed(SharedExperts, type(module))


@functools.cache
def _mixed(ours: type[nn.Module], own: type[nn.Module]) -> type[nn.Module]:
    """A class that is both, as ``fully_shard`` makes them."""
    return type(f"Shared{own.__name__}", (ours, own), {})
