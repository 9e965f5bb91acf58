"""The learning rate of an optimizer that names none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

_ARGUMENT = "lr"


def give_rate(tree: DictConfig) -> None:
    """Let the optimizer of ``tree``, which is not resolved, train at ``policy.lr`` where nothing else is said.

    A class's own default may be a thousand times that of fine-tuning, and ``policy.lr`` would have no effect. With
    ``lr: null`` it is what is asked for: such an ``lr`` is not passed on.
    """
    from omegaconf import OmegaConf

    optimizer = _section(_section(tree, "policy"), "optimizer")
    if optimizer is None or "name" not in optimizer:
        return
    if "kwargs" not in optimizer:
        OmegaConf.update(optimizer, "kwargs", {}, force_add=True)
    kwargs = _section(optimizer, "kwargs")
    if kwargs is not None and _ARGUMENT not in kwargs:
        OmegaConf.update(kwargs, _ARGUMENT, "${policy.lr}", force_add=True)


def _section(around: DictConfig | None, name: str) -> DictConfig | None:
    """A section whose keys stand here; None of what is null, or what another key holds."""
    from omegaconf import DictConfig

    node = around._get_node(name) if around is not None and name in around else None
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing() or node._is_interpolation():
        return None
    return node
