"""The ranks of a training as a mesh with named dimensions; everything that communicates asks it for its group.

::

    mesh = Mesh.of(Layout(shard=2, tensor=2), "cpu")
    fully_shard(layer, mesh=mesh.fsdp)
    distribute_tensor(weight, mesh.tensor, [Shard(0)], src_data_rank=None)
    dist.all_reduce(value, group=mesh.context.get_group())
"""

from __future__ import annotations

from dataclasses import dataclass

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from skills_pipe.training.config.parallel import DIMENSIONS, Layout


@dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """The groups of this rank.

    Attributes:
        layout: sizes of the dimensions.
        fsdp: over which FSDP2 shards parameters and sums up gradients: one dimension, or two with copies of the model
            (replicate, shard). Ranks that share a sequence hold shards as well: their gradients are parts of a sum,
            as those of other documents are.
        tensor: the ranks that share each layer, one dimension; they are given the same rows.
        context: the ranks that share each sequence, one dimension; they are given the same rows.
        expert: the ranks that share the experts of a mixture and have tokens of their own, one dimension; neighbours
            of those that ``fsdp`` shards over. None: nobody does.
        experts: over which the experts of a mixture are divided, one dimension: ``expert`` and, as the faster one,
            ``tensor`` together.
        expert_fsdp: over which the experts of a rank are sharded: the ranks that have the same ones, in the form of
            ``fsdp``. None: it is ``fsdp``.
    """

    layout: Layout
    fsdp: DeviceMesh
    tensor: DeviceMesh
    context: DeviceMesh
    experts: DeviceMesh
    expert: DeviceMesh | None = None
    expert_fsdp: DeviceMesh | None = None

    @classmethod
    def of(cls, layout: Layout, device_type: str) -> Mesh:
        """The mesh of all ranks of the process group; to be called on every rank."""
        whole = init_device_mesh(device_type, layout.sizes, mesh_dim_names=DIMENSIONS)
        # "Flattened" and joined, because the groups of all dimensions must belong to one and the same mesh.
        shard = whole["shard", "context"]._flatten("shard_context") if layout.context > 1 else whole["shard"]
        experts = _experts(layout, device_type) if layout.expert > 1 else None
        return cls(
            layout=layout,
            fsdp=_copies(whole, shard, layout),
            tensor=whole["tensor"],
            context=whole["context"],
            experts=_divided(experts, layout) if experts is not None else whole["tensor"],
            expert=experts["expert"] if experts is not None else None,
            expert_fsdp=_copies(experts, experts["same_experts"], layout) if experts is not None else None,
        )


def _experts(layout: Layout, device_type: str) -> DeviceMesh:
    """The same ranks once more, those of one copy of the model divided into groups that have all experts."""
    groups = layout.shard * layout.context // layout.expert
    sizes = (layout.replicate, groups, layout.expert, layout.tensor)
    return init_device_mesh(device_type, sizes, mesh_dim_names=("replicate", "same_experts", "expert", "tensor"))


def _divided(experts: DeviceMesh, layout: Layout) -> DeviceMesh:
    return experts["expert", "tensor"]._flatten("experts") if layout.tensor > 1 else experts["expert"]


def _copies(whole: DeviceMesh, shard: DeviceMesh, layout: Layout) -> DeviceMesh:
    """What FSDP2 shards over, with the copies of the model in front where there are several."""
    return DeviceMesh._concatenate([whole["replicate"], shard]) if layout.replicate > 1 else shard
