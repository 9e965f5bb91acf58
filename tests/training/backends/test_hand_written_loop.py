"""A YAML file's optimizer and schedules beside a loop that is written by hand in plain torch."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import load_config
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.loss import SupervisedLoss
from tests.training.backends.scenario import BATCH, PACKED, dataset
from tests.training.tiny import tiny_model

STEPS = 20
ALONE = World(rank=0, size=1, device=torch.device("cpu"))
YAML = """
policy:
  model_name: /models/base
  precision: float32
  max_grad_norm: null
  optimizer:
    name: torch.optim.AdamW
    kwargs: {lr: 2e-3, betas: [0.9, 0.98], eps: 1e-6, weight_decay: 0.1}
  scheduler:
    - {name: torch.optim.lr_scheduler.LinearLR, kwargs: {start_factor: 0.1, total_iters: 4}}
    - {name: torch.optim.lr_scheduler.CosineAnnealingLR, kwargs: {T_max: 16, eta_min: 1.0e-5}}
    - milestones: [4]
data:
  train_data_path: rows.jsonl
"""


def batches():
    data = dataset(STEPS * BATCH)
    return [split_batch(data, range(start, start + BATCH), PACKED, 0, 1) for start in range(0, STEPS * BATCH, BATCH)]


def by_configuration(folder):
    """Rates, and weights after the last step."""
    (folder / "sft.yaml").write_text(YAML)
    settings = FsdpSettings.of(load_config(folder / "sft.yaml", []).policy)
    backend = FsdpBackend(tiny_model("llama"), settings, ALONE)
    rates = [backend.train_step(batch.microbatches, targets=batch.global_targets).lr for batch in batches()]
    return rates, backend.trainee.model.state_dict()


def by_hand(*, milestone=4, eps=1e-6):
    model = tiny_model("llama").train()
    loss = SupervisedLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), eps=eps, weight_decay=0.1, fused=True)
    warmup = LinearLR(optimizer, start_factor=0.1, total_iters=4)
    decay = CosineAnnealingLR(optimizer, T_max=16, eta_min=1e-5)
    scheduler, rates = SequentialLR(optimizer, [warmup, decay], milestones=[milestone]), []
    for batch in batches():
        for row in batch.microbatches:
            documents = Documents.of(row.cu_seqlens)
            scale = 1.0 / batch.global_targets
            loss(row.input_ids, row.position_ids, row.labels, documents, scale=scale).backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    return rates, model.state_dict()


def test_rates_and_weights_of_twenty_steps_are_those_of_the_loop_bit_for_bit(tmp_path):
    rates, weights = by_configuration(tmp_path)
    expected = by_hand()

    assert rates == expected[0]
    assert [name for name, value in expected[1].items() if not torch.equal(weights[name], value)] == []


@pytest.mark.parametrize("other", [{"milestone": 5}, {"eps": 1e-8}], ids=str)
def test_another_milestone_or_constant_would_be_noticed(tmp_path, other):
    rates, weights = by_configuration(tmp_path)
    expected = by_hand(**other)

    assert (rates == expected[0]) is ("eps" in other)
    assert any(not torch.equal(weights[name], value) for name, value in expected[1].items())
