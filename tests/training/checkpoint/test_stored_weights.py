import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from skills_pipe.training.checkpoint.stored_weights import StoredWeights
from skills_pipe.training.distributed import World


def save(world: World, *, folder: str) -> None:
    """One value, split in three ways."""
    mesh = init_device_mesh("cpu", (world.size,))
    value = torch.arange(35.0).reshape(5, 7)
    splits = {"rows": Shard(0), "columns": Shard(1), "copies": Replicate()}
    dcp.save({name: distribute_tensor(value, mesh, [split]) for name, split in splits.items()}, checkpoint_id=folder)


def test_tensors_split_over_ranks_in_any_way_are_put_together(two_ranks, tmp_path):
    two_ranks(save, folder=str(tmp_path / "weights"))
    stored = StoredWeights(tmp_path / "weights")
    assert set(stored.tensors) == {"rows", "columns", "copies"}
    for name, tensor in stored.tensors.items():
        assert tensor.shape == (5, 7)
        read = torch.cat([piece.clone() for piece in stored.pieces(name)])
        assert torch.equal(read, torch.arange(35.0)), name
