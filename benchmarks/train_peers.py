"""One training by TRL or by the Trainer of transformers, for ``train.py``; run by the Python that has TRL.

The argument is a JSON object with the fields of :class:`Job`. Each rank writes a line per step into
``steps-RANK.jsonl``: when it ended, and how many tokens it had; the first prints how many tokens of the data are
supervised.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training of ``train.py``.

    Attributes:
        program: ``hf`` (padded), ``trl`` (padded) or ``trl-packed`` (best fit decreasing).
        model: folder with the model and its tokenizer.
        rows: JSONL file of chats.
        precision: ``float32`` or ``bfloat16``.
        limit: tokens of a packed row.
        batch: rows of a step, on all processes together; chats where rows are padded.
        processes: that train together.
        steps: optimizer steps.
        shuffle: whether the order is random.
        output: folder for what trainers leave.
    """

    program: str
    model: str
    rows: str
    precision: str
    limit: int
    batch: int
    processes: int
    steps: int
    shuffle: bool
    output: str


class Meter:
    """Counts what this rank trains on, and writes a line at the end of each step."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a")  # noqa: SIM115
        self._tokens = 0
        self._loss = 0.0

    def count(self, inputs: dict[str, Any]) -> None:
        """Take in a microbatch."""
        mask = inputs.get("attention_mask")
        self._tokens += int(mask.sum()) if mask is not None else inputs["input_ids"].numel()

    def add(self, loss: float) -> None:
        """Take in the share of a microbatch in the loss of the step."""
        self._loss += loss

    def end_step(self) -> None:
        """Write what the step had, and when it ended."""
        self._file.write(json.dumps({"time": time.time(), "tokens": self._tokens, "loss": self._loss}) + "\n")
        self._file.flush()
        self._tokens, self._loss = 0, 0.0


def main() -> None:
    """Train as the argument says."""
    job = Job(**json.loads(sys.argv[1]))
    rank = int(os.environ.get("RANK", "0"))
    meter = Meter(Path(job.output, f"steps-{rank}.jsonl"))
    trainer = _trl(job, meter) if job.program.startswith("trl") else _hf(job, meter)
    trainer.add_callback(_step_callback(meter))
    trainer.train()
    targets = sum(label != -100 for row in trainer.train_dataset for label in _labels(row))
    if rank == 0:
        print(json.dumps({"all_targets": targets}), flush=True)


def _settings(job: Job) -> dict[str, Any]:
    """Arguments that both trainers share; the optimizer is AdamW, fused, by their default."""
    packed = job.program == "trl-packed"
    # Packed rows one by one, as one forward pass holds about as many tokens as a padded one of several chats.
    at_once = 1 if packed else job.batch // job.processes
    return {
        "output_dir": job.output,
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": job.batch // job.processes // at_once,
        "max_steps": job.steps,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": job.precision == "bfloat16",
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "train_sampling_strategy": "random" if job.shuffle else "sequential",
        "dataloader_pin_memory": False,
    }


def _hf(job: Job, meter: Meter) -> Any:
    import datasets
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    class Measured(Trainer):
        def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            meter.count(inputs)
            loss = super().training_step(model, inputs, *args, **kwargs)
            meter.add(float(loss))
            return loss

    model, tokenizer = _model(job)

    def encode(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        made = tokenizer.apply_chat_template(
            batch["messages"], return_assistant_tokens_mask=True, return_dict=True, tokenize=True
        )
        pairs = zip(made["input_ids"], made["assistant_masks"], strict=True)
        labels = [[token if kept else -100 for token, kept in zip(ids, mask, strict=True)] for ids, mask in pairs]
        return {"input_ids": made["input_ids"], "labels": labels}

    rows = datasets.load_dataset("json", data_files=job.rows, split="train")
    return Measured(
        model=model,
        args=TrainingArguments(**_settings(job)),
        train_dataset=rows.map(encode, batched=True, remove_columns=["messages"]),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )


def _trl(job: Job, meter: Meter) -> Any:
    import datasets
    from trl import SFTConfig, SFTTrainer

    class Measured(SFTTrainer):
        def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            meter.count(inputs)
            loss = super().training_step(model, inputs, *args, **kwargs)
            meter.add(float(loss))
            return loss

    model, tokenizer = _model(job)
    config = SFTConfig(
        **_settings(job),
        max_length=job.limit,
        packing=job.program == "trl-packed",
        packing_strategy="bfd",
        assistant_only_loss=True,
    )
    rows = datasets.load_dataset("json", data_files=job.rows, split="train")
    return Measured(model=model, args=config, train_dataset=rows, processing_class=tokenizer)


def _model(job: Job) -> tuple[Any, Any]:
    import datasets
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    datasets.disable_progress_bars()
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32, attn_implementation="sdpa")
    return model, AutoTokenizer.from_pretrained(job.model)


def _labels(row: dict[str, Any]) -> list[int]:
    """Of a row of either trainer; the first token of a document is never a target."""
    if "labels" in row:
        return row["labels"]
    return [0 if kept else -100 for kept in row["assistant_masks"]]


def _step_callback(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class StepCallback(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.end_step()

    return StepCallback()


if __name__ == "__main__":
    main()
