"""Layers that torch.compile makes faster, all but their attention.

Attention is left as it is: what one row's documents need differs from the next row's, and on a GPU it is one kernel
already. So a layer becomes four graphs, two before attention and two behind it, for tokens of any number; layers of one
class share them.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.fx.experimental._config
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from skills_pipe.errors import ConfigError, first_line
from skills_pipe.training.models.layers import layers_of

_MARK = "is_compiled"


def compile_layers(model: PreTrainedModel) -> None:
    """Give each layer of ``model`` a forward pass that is compiled when it is first called.

    Names of parameters stay. What is dropped out of attention stays too; other dropout draws other random numbers,
    which come from torch's generator all the same. Beyond a handful of graphs for one layer there is an error: torch
    would otherwise go on uncompiled without a word.
    """
    # Graphs of models before this one would count.
    torch._dynamo.reset()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    # A row that has as many tokens as the model is wide would else be taken for one of that length always.
    torch.fx.experimental._config.use_duck_shape = False
    for layer in layers_of(model):
        if not hasattr(type(layer), _MARK):
            layer.__class__ = _compiled(type(layer))


@functools.cache
def require_compiler(device_type: str, *, where: str, instead: str) -> None:
    """Compile a line for such a device.

    Args:
        device_type: as of :class:`torch.device`.
        where: the key that asks for it.
        instead: what to do without a compiler.

    Raises:
        ConfigError: it is not possible here.
    """
    try:
        # What a cache has from another time would need no compiler.
        made = torch.compile(nn.functional.silu, dynamic=True, options={"fx_graph_cache": False})
        made(torch.ones(4, device=device_type))
    except Exception as error:
        raise ConfigError(
            f"torch.compile does not work here: {_reason(error)}",
            where=where,
            fix=f"install a C++ compiler (on Debian g++) and the headers of Python, or {instead}",
        ) from error


@functools.cache
def _compiled(layer: type[nn.Module]) -> type[nn.Module]:
    """A subclass, so that recomputed activations and FSDP2, which subclass too, find what they look for."""
    plain = layer.forward
    if issubclass(layer, GradientCheckpointingLayer):
        # Only what is below the recomputation can be compiled; the subclass gets one of its own.
        plain = plain.__wrapped__  # type: ignore[attr-defined]
    compiled = torch.compile(plain, dynamic=True)

    @functools.wraps(plain)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return compiled(self, *args, **kwargs)

    return type(f"Compiled{layer.__name__}", (layer,), {"forward": forward, _MARK: True})


def _reason(error: BaseException) -> str:
    """The first line of the innermost error that says something."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
