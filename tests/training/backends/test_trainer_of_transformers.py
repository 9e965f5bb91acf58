"""Twenty steps beside the Trainer of transformers, of the same documents in the same order: it is the same training."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer, TrainingArguments

from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import ObjectConfig, SchedulerConfig
from skills_pipe.training.data.batches import IGNORE, BatchSettings, split_batch
from skills_pipe.training.distributed import World
from tests.training.backends.scenario import PACKED, dataset, make_backend
from tests.training.tiny import tiny_model

STEPS, BATCH, MICRO_BATCH = 20, 8, 2
WARMUP = {"num_warmup_steps": 3}
ALONE = World(rank=0, size=1, device=torch.device("cpu"))
SETTINGS = FsdpSettings(
    optimizer=ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": 1e-3, "weight_decay": 0.0}),
    scheduler=SchedulerConfig(
        parts=(ObjectConfig(name="transformers.get_linear_schedule_with_warmup", kwargs=WARMUP),), milestones=()
    ),
    total_steps=STEPS,
)


class Watched(Trainer):
    """Keeps the loss of every micro-batch, of which the Trainer itself logs rounded means."""

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.seen = [*getattr(self, "seen", []), loss.item()]
        return loss

    def losses(self):
        """Of each step, whose micro-batches it adds up."""
        parts = BATCH // MICRO_BATCH
        return [sum(self.seen[start : start + parts]) for start in range(0, len(self.seen), parts)]


def padded(rows):
    ids, labels = ([torch.from_numpy(row[name]) for row in rows] for name in ("input_ids", "labels"))
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORE),
        "attention_mask": pad_sequence([torch.ones_like(each) for each in ids], batch_first=True),
    }


def trained_by_transformers(folder, *, per_token=True):
    """Losses and final weights; with ``per_token=False`` each micro-batch has its own mean, as before version 4.46."""
    data = dataset(STEPS * BATCH)
    rows = [
        {"input_ids": ids.astype("int64"), "labels": ids.astype("int64") * mask + IGNORE * (1 - mask.astype("int64"))}
        for ids, mask in ((data[at].input_ids, data[at].loss_mask) for at in range(len(data)))
    ]
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=BATCH // MICRO_BATCH,
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        warmup_steps=WARMUP["num_warmup_steps"],
        max_grad_norm=1.0,
        train_sampling_strategy="sequential",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    model = tiny_model("llama")
    trainer = Watched(model=model, args=arguments, train_dataset=rows, data_collator=padded)
    if not per_token:
        trainer.model_accepts_loss_kwargs = False
    trainer.train()
    return trainer.losses(), model.state_dict()


def trained_by_us(batches):
    backend, data = make_backend(SETTINGS, ALONE), dataset(STEPS * BATCH)
    losses = []
    for start in range(0, STEPS * BATCH, BATCH):
        batch = split_batch(data, range(start, start + BATCH), batches, 0, 1)
        losses.append(backend.train_step(batch.microbatches, targets=batch.global_targets).loss)
    return losses, backend.trainee.model.state_dict()


def furthest(ours, theirs):
    """The largest difference of a loss, and of a weight matrix by its norm."""
    loss = max(abs(one - other) for one, other in zip(ours[0], theirs[0], strict=True))
    return loss, max(float((ours[1][name] - value).norm() / value.norm()) for name, value in theirs[1].items())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("batches", [PACKED, BatchSettings(capacity=64, packing=False, micro_batch_size=MICRO_BATCH)])
def test_losses_and_weights_are_those_of_the_trainer_of_transformers(batches, tmp_path):
    loss, weight = furthest(trained_by_us(batches), trained_by_transformers(tmp_path))

    assert loss < 1e-5
    assert weight < 1e-4


@pytest.mark.filterwarnings("ignore")
def test_a_mean_of_each_micro_batch_by_itself_would_be_another_training(tmp_path):
    loss, weight = furthest(trained_by_us(PACKED), trained_by_transformers(tmp_path, per_token=False))

    assert loss > 1e-3
    assert weight > 1e-3
