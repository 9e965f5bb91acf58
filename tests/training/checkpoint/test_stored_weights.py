import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from skills_pipe.training.checkpoint.stored_weights import StoredWeights

ROOT = Path(__file__).parents[3]

SAVE = """
import gc, sys
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

dist.init_process_group("gloo")
mesh = init_device_mesh("cpu", (2,))
value = torch.arange(35.0).reshape(5, 7)
splits = {"rows": Shard(0), "columns": Shard(1), "copies": Replicate()}
state = {name: distribute_tensor(value, mesh, [split]) for name, split in splits.items()}
dcp.save(state, checkpoint_id=sys.argv[1])
del state, mesh
gc.collect()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_tensors_split_over_ranks_in_any_way_are_put_together(tmp_path):
    (tmp_path / "save.py").write_text(SAVE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "save.py"), str(tmp_path / "weights")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    stored = StoredWeights(tmp_path / "weights")
    assert set(stored.tensors) == {"rows", "columns", "copies"}
    for name, tensor in stored.tensors.items():
        assert tensor.shape == (5, 7)
        read = torch.cat([piece.clone() for piece in stored.pieces(name)])
        assert torch.equal(read, torch.arange(35.0)), name
