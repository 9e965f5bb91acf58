"""The main job through nemo-run's Slurm executor: two ranks in containers train a tiny model, and it is exported."""

from __future__ import annotations

import json

import pytest
import yaml

from skills_pipe.pipeline.cli import main
from skills_pipe.pipeline.executors.registry import statuses_of
from skills_pipe.pipeline.records.states import JobState
from skills_pipe.pipeline.records.store import RunStore
from tests.pipeline.programs import until
from tests.training.tiny import save_tiny_model

pytestmark = [pytest.mark.nemo_run, pytest.mark.slurm, pytest.mark.slow]

KEYS = (
    "++sft.max_num_steps=4 ++checkpointing.save_period=2 ++policy.train_global_batch_size=4 "
    "++policy.max_total_sequence_length=128 ++policy.precision=float32"
)


def ns(*words: str) -> int:
    """Exit code of a command."""
    try:
        return main(list(words)) or 0
    except SystemExit as end:
        return int(end.code or 0)


def test_two_ranks_train_and_the_model_is_exported(
    slurm_accounting, pyxis, nemo_run_python, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    work = tmp_path / "work"
    save_tiny_model(work / "base")
    rows = [{"input": f"{number}+1=", "output": str(number + 1)} for number in range(16)]
    (work / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "executor": "nemo_run",
        "job_dir": str(tmp_path / "jobs"),
        "account": "root",
        "containers": {"nemo-rl": str(pyxis.folder), "nemo-skills": str(pyxis.folder)},
        "mounts": [f"{work}:/work", *pyxis.mounts],
        "env_vars": ["OMP_NUM_THREADS=1", "HF_HUB_OFFLINE=1"],
        "skip_hf_home_check": True,
        "nemo_run": {"executor": "slurm", "python": nemo_run_python},
    }
    (tmp_path / "nemo.yaml").write_text(yaml.safe_dump(config))
    told = ("--cluster=nemo.yaml", "--expname=tiny")
    paths = ("--output_dir=/work/out", "--hf_model=/work/base", "--training_data=/work/data.jsonl")
    assert (
        ns("nemo_rl", "sft", *told, *paths, "--num_gpus=2", "--num_training_jobs=1", "--disable_wandb", *KEYS.split())
        == 0
    )
    run = RunStore(tmp_path / "jobs").latest("tiny")
    until(lambda: all(s.state.ended for s in statuses_of(run).values()), "training and export end", at_most=180)
    assert {status.state for status in statuses_of(run).values()} == {JobState.SUCCEEDED}
    assert list((work / "out/final_hf_model").glob("*.safetensors"))
    assert (work / "out/checkpoints/step_4/manifest.json").exists()
    capsys.readouterr()
    assert ns("status", "tiny", "--cluster=nemo.yaml") == 0
    assert "succeeded" in capsys.readouterr().out
