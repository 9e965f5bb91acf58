"""``python -m skills_pipe.training.node``: the ranks of one node by torchrun, as one task of Slurm on each node.

python -m skills_pipe.training.node --nproc-per-node=8 -m skills_pipe.training.sft key=value ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from torch.distributed.run import main as torchrun

from skills_pipe.training.slurm_step import read_step

_SHUTDOWN_SECONDS = 300
"""How long ranks may take to save after a TERM before torchrun kills them; its own default is 30."""


def main(argv: Sequence[str] | None = None) -> None:
    """Start torchrun for this node; the words are its own. Nodes, their order and the meeting point are Slurm's."""
    torchrun([*node_arguments(), *(sys.argv[1:] if argv is None else argv)])


def node_arguments() -> list[str]:
    """What torchrun has to be told of this node, read from the step of Slurm that this process is a task of."""
    # One task on each node: its "rank" is that of the node, its "world" is the nodes.
    nodes = read_step()
    return [
        f"--nnodes={nodes.world_size}",
        f"--node-rank={nodes.rank}",
        f"--master-addr={nodes.master_addr}",
        f"--master-port={nodes.master_port}",
        f"--shutdown-timeout={_SHUTDOWN_SECONDS}",
    ]


if __name__ == "__main__":
    main()
