"""Training as users start it, on two nodes and in containers, and what comes out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from skills_pipe.pipeline.cli import sft_nemo_rl, wrap_arguments
from tests.slurm.image import SmallImage
from tests.training.tiny import save_tiny_model

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

KEYS = (
    "++sft.max_num_steps=4 ++checkpointing.save_period=2 ++policy.train_global_batch_size=8 ++policy.lr=1e-3 "
    "++policy.max_total_sequence_length=128 ++policy.precision=float32"
)


@pytest.fixture
def cluster(slurm, pyxis, tmp_path, monkeypatch) -> str:
    """The path of a configuration in which everything lies on /workspace."""
    monkeypatch.chdir(tmp_path)
    workspace = tmp_path / "workspace"
    (workspace / "hf").mkdir(parents=True)
    save_tiny_model(workspace / "base")
    rows = [{"input": f"What is {number} + 1?", "output": f"It is {number + 1}."} for number in range(64)]
    (workspace / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("cluster.yaml").write_text(yaml.safe_dump(configuration(pyxis, tmp_path)))
    return f"{tmp_path}/cluster.yaml"


def configuration(image: SmallImage, folder: Path) -> dict[str, object]:
    return {
        "executor": "slurm",
        "job_dir": f"{folder}/jobs",
        "account": "research",
        "partition": "batch",
        "cpu_partition": "cpu",
        "container_runtime": "pyxis",
        "containers": {"nemo-rl": str(image.folder), "nemo-skills": str(image.folder)},
        "mounts": [f"{folder}/workspace:/workspace", *image.mounts],
        "env_vars": ["HF_HOME=/workspace/hf", "OMP_NUM_THREADS=1"],
    }


def test_four_ranks_on_two_nodes_train_the_model_that_one_process_trains(cluster, tmp_path):
    """In two jobs, the second of which goes on from what the first has saved."""
    run = sft_nemo_rl(
        ctx=wrap_arguments(f"{KEYS} ++checkpointing.stop_after_steps=2"),
        cluster=cluster,
        expname="wide",
        output_dir="/workspace/out",
        num_nodes=2,
        num_gpus=2,
        num_training_jobs=2,
        hf_model="/workspace/base",
        training_data="/workspace/data.jsonl",
        disable_wandb=True,
    ).wait()
    assert [state.value for state in run.states().values()] == ["continued", "succeeded", "succeeded"]
    workspace = tmp_path / "workspace"
    ranks = sorted(path.name for path in (workspace / "out/checkpoints/step_4/rng").iterdir())
    assert ranks == [f"rank_{rank}.pt" for rank in range(4)]

    alone = sft_nemo_rl(
        ctx=wrap_arguments(KEYS),
        expname="alone",
        output_dir=f"{tmp_path}/alone",
        hf_model=f"{workspace}/base",
        training_data=f"{workspace}/data.jsonl",
        disable_wandb=True,
    )
    assert alone.succeeded
    base = weights(workspace / "base")
    wide, narrow = weights(workspace / "out/final_hf_model"), weights(tmp_path / "alone/final_hf_model")
    assert wide.keys() == narrow.keys() == base.keys()
    # Adam turns a rounding difference of a gradient near zero into a whole step, so norms are compared.
    learned = distance(narrow, base)
    assert learned > 0.1
    assert distance(wide, narrow) < 1e-5 * learned


def test_torchrun_starts_the_ranks_of_each_node(cluster, tmp_path):
    config = yaml.safe_load(Path(cluster).read_text())
    Path(cluster).write_text(yaml.safe_dump(config | {"rank_launcher": "torchrun"}))
    run = sft_nemo_rl(
        ctx=wrap_arguments(f"{KEYS} ++checkpointing.stop_after_steps=2"),
        cluster=cluster,
        expname="elastic",
        output_dir="/workspace/out",
        num_nodes=2,
        num_gpus=2,
        hf_model="/workspace/base",
        training_data="/workspace/data.jsonl",
        disable_wandb=True,
    ).wait()
    # It says that it is to go on, through a torchrun on each node; that it does is shown above.
    assert [state.value for state in run.states().values()] == ["continued", "cancelled"]
    ranks = sorted(path.name for path in (tmp_path / "workspace/out/checkpoints/step_2/rng").iterdir())
    assert ranks == [f"rank_{rank}.pt" for rank in range(4)]
    (log,) = (tmp_path / "workspace/out/training-logs").glob("main_elastic-sft-0_*_srun.log")
    assert "stop" in log.read_text()


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Euclidean distance of two sets of weights."""
    return sum((one[name].double() - other[name].double()).square().sum().item() for name in one) ** 0.5


def weights(model: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in model.glob("*.safetensors") for name, tensor in load_file(file).items()}
