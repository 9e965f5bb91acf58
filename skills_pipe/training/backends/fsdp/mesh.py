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
    """

    layout: Layout
    fsdp: DeviceMesh
    tensor: DeviceMesh
    context: DeviceMesh

    @classmethod
    def of(cls, layout: Layout, device_type: str) -> Mesh:
        """The mesh of all ranks of the process group; to be called on every rank."""
        whole = init_device_mesh(device_type, layout.sizes, mesh_dim_names=DIMENSIONS)
        # "Flattened" and joined, because the groups of all dimensions must belong to one and the same mesh.
        shard = whole["shard", "context"]._flatten("shard_context") if layout.context > 1 else whole["shard"]
        return cls(
            layout=layout,
            fsdp=DeviceMesh._concatenate([whole["replicate"], shard]) if layout.replicate > 1 else shard,
            tensor=whole["tensor"],
            context=whole["context"],
        )
