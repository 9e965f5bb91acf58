"""Liger's loss is ours where it is chosen, and is refused where it cannot be."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import load_config
from skills_pipe.training.distributed import World
from skills_pipe.training.models import liger
from tests.training.backends.scenario import SCENARIOS
from tests.training.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[3]
NEEDED = ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl", "policy.dtensor_cfg.loss_kernel=liger"]


@pytest.mark.peers
def test_loss_and_gradients_are_those_of_our_own(tmp_path):
    python = Path(os.environ.get("PEERS_PYTHON") or ROOT / ".venv-peers" / "bin" / "python")
    if not python.exists():
        pytest.skip(f"there is no {python} with Liger: run `make test-peers`, or set PEERS_PYTHON")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    argv = [python, "-W", "ignore", "-m", "tests.training.models.liger_beside_ours"]
    said = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr

    found = json.loads(said.stdout.splitlines()[-1])
    assert len(found["same"]) == 9 and max(found["same"].values()) <= 1e-6, found
    assert min(found["controls"].values()) > 1e-5, found
    for case, told in found["verdicts"].items():
        assert told is None if not case.startswith("no cap") else "in the loss" in told, (case, told)


def test_without_a_gpu_it_is_refused():
    settings = replace(SCENARIOS["float32"], loss_kernel="liger")
    with pytest.raises(ConfigError, match=r"for GPUs, and this is cpu .*loss_kernel"):
        FsdpBackend(tiny_model("llama"), settings, World(rank=0, size=1, device=torch.device("cpu")))


def test_where_it_is_not_installed_it_is_refused(monkeypatch):
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed .*pip install liger-kernel"):
        liger.require(torch.device("cuda"))


def test_unless_another_is_asked_for_it_is_used_where_it_can_be():
    assert FsdpSettings.of(load_config(None, NEEDED[:2]).policy).loss_kernel == "auto"
    load_config(None, [*NEEDED[:2], "policy.tensor_model_parallel_size=2"])


def test_ranks_that_share_the_words_cannot_use_it():
    assert FsdpSettings.of(load_config(None, NEEDED).policy).loss_kernel == "liger"
    with pytest.raises(ConfigError, match="needs all words of the vocabulary"):
        load_config(None, [*NEEDED, "policy.tensor_model_parallel_size=2"])
