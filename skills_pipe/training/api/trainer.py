"""Train a model on a data set, in the process that asks for it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.errors import ConfigError
from skills_pipe.training.api import checkpoint_file
from skills_pipe.training.api.dataset import SFTDataset
from skills_pipe.training.api.model import HuggingFaceModel
from skills_pipe.training.api.settings import configuration
from skills_pipe.training.backends.base import TrainingDiverged
from skills_pipe.training.carry_out import carry_out
from skills_pipe.training.checkpoint.state import ResumePoint
from skills_pipe.training.config import TrainingConfig
from skills_pipe.training.data.build import build_dataset
from skills_pipe.training.data.from_config import TrainingData, batch_settings, data_settings, load_data
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.sources.configured import row_format
from skills_pipe.training.distributed import join
from skills_pipe.training.progress import Progress
from skills_pipe.training.run import Run
from skills_pipe.training.setup import Parts, assemble, stop_request, with_checkpoints, with_metrics
from skills_pipe.training.signals import SignalListener
from skills_pipe.training.validation import Validation


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How well a model writes the answers of a data set.

    Attributes:
        loss: mean cross entropy over the trained tokens of all rows, in nats.
        perplexity: ``exp(loss)``.
    """

    loss: float
    perplexity: float


class SFTTrainer:
    """Supervised fine-tuning of ``model``, whose weights change in place.

    Steps of checkpoints are written only where the configuration has a section ``checkpointing``; else
    :meth:`save_checkpoint` is how a state is kept.

    Args:
        model: what to train.
        train_dataset: rows to train on.
        val_dataset: rows to validate on after each epoch, unless the configuration says when.
        config: sections as values, or a YAML file, in the layout of ``docs/configuration.md`` or in the tutorial's
            (``model``, ``training``, ``data``). The model and the data sets given here count.

    Raises:
        ConfigError: the configuration has mistakes.
        DataError: the rows cannot be used.
    """

    def __init__(
        self,
        *,
        model: HuggingFaceModel,
        train_dataset: SFTDataset,
        val_dataset: SFTDataset | None = None,
        config: Mapping[str, Any] | str | Path | None = None,
    ) -> None:
        _refuse_several_processes()
        self.model = model
        self._datasets = (train_dataset, val_dataset)  # a temporary file lives as long as its data set
        settings = configuration(config, model, train_dataset, val_dataset)
        self._parts = Parts.of(model.tokenizer, load_data(settings, model.tokenizer), model.module)
        self.config = _validating_each_epoch(settings, self._parts.data)
        self._run: Run | None = None
        self._point: ResumePoint | None = None

    def train(self) -> Verdict:
        """Train to the end of the configured epochs or steps, from where the trainer stands.

        Raises:
            TrainingDiverged: the loss is no number any more.
        """
        listener = SignalListener()
        with listener.listening(), join() as world:
            standing = replace(self._standing(), resumed=self._point)
            stop = stop_request(self.config, listener, world)
            run = with_metrics(with_checkpoints(replace(standing, stop=stop), self._parts))
            progress = Progress.of(run)
            verdict = carry_out(run, self._parts, progress)
        self._point = progress.point(run)
        if verdict.outcome is Outcome.FAILED:
            raise TrainingDiverged(verdict.reason, step=verdict.step)
        return verdict

    def evaluate(self, dataset: SFTDataset | None = None) -> Evaluation:
        """The loss on ``dataset``, by default on the validation rows.

        Raises:
            ConfigError: there is neither.
        """
        found = dataset or self._datasets[1]
        if found is None:
            raise ConfigError("there are no rows to evaluate on", fix="give val_dataset, or a dataset here")
        run = self._standing()
        # Keys, prompts and the like as for the training rows.
        read_as = replace(self.config.data.train[0], dataset_name=found.name)
        rows = DataSource(path=found.path, format=row_format(read_as), preserving=read_as.use_preserving_dataset)
        documents = build_dataset([rows], self.model.tokenizer, self._parts.data.template, data_settings(self.config))
        validation = Validation(
            datasets={"rows": documents},
            batch_size=self.config.sft.val_global_batch_size,
            max_batches=0,
            batches=batch_settings(self.config),
        )
        loss = validation.losses(run.backend, run.world).overall
        return Evaluation(loss=loss, perplexity=math.exp(loss))

    def save_checkpoint(self, path: str | Path) -> None:
        """Write the whole state into one file: weights, optimizer, schedule, randomness, watches, place in the data.

        Raises:
            CheckpointError: the file cannot be written.
        """
        standing = self._standing()
        checkpoint_file.save(Path(path), standing, self._point or Progress.of(standing).point(standing))

    def load_checkpoint(self, path: str | Path) -> None:
        """Bring model and trainer into the state of a file; :meth:`train` then goes on from there.

        Raises:
            CheckpointError: the file is missing, damaged, or of another model, other data or another batch size.
            ConfigError: the configuration has checkpoints of its own, which training resumes from.
        """
        if self.config.checkpointing.enabled:
            raise ConfigError(
                f"training resumes from {self.config.checkpointing.checkpoint_dir} by itself",
                where="checkpointing",
                fix="leave the section out to go on from a file",
            )
        self._point = checkpoint_file.load(Path(path), self._standing())

    def _standing(self) -> Run:
        """The run between trainings: its model and optimizer on their device."""
        if self._run is None:
            with join() as world:
                self._run = assemble(self.config, self._parts, world, SignalListener())
        return self._run


def _validating_each_epoch(config: TrainingConfig, data: TrainingData) -> TrainingConfig:
    """A configuration that does not say when to validate does it after each epoch."""
    if config.sft.val_period or not data.validation:
        return config
    units = batch_settings(config, data.train).units(data.train)
    steps = max(1, units // config.policy.train_global_batch_size)
    return replace(config, sft=replace(config.sft, val_period=steps))


def _refuse_several_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        raise ConfigError(
            "several processes were started, and SFTTrainer trains in one",
            fix="train in several with torchrun -m skills_pipe.training.sft",
        )
