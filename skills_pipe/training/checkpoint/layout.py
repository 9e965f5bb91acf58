"""What lies where in a folder of checkpoints and in one ``step_N`` of it.

::

    checkpoints/
      step_N/
        config.yaml               resolved training configuration
        training_info.json        counters and metrics
        train_dataloader.json     position in the data
        policy/weights/           model, torch.distributed.checkpoint format
        policy/optimizer/         optimizer, the same format
        policy/ema/               moving average of the model, the same format, where one is kept
        policy/adapter_config.json  of adapters, whose values alone are the weights then; as peft writes it
        policy/scheduler.pt       learning rate schedule
        policy/tokenizer/         tokenizer and chat template as trained
        policy/model/             config.json, generation_config.json
        rng/rank_R.pt             random number generators of rank R
        manifest.json             written last: the step is whole
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.artifacts.names import ADAPTER_OF_STEP, CHECKPOINTS, TRAINING_INFO, parse_step
from skills_pipe.errors import CheckpointError


@dataclass(frozen=True)
class StepFolder:
    """Paths inside one ``step_N`` folder, or inside the temporary folder that will become one."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved training configuration."""
        return self.path / "config.yaml"

    @property
    def info(self) -> Path:
        """Counters and metrics."""
        return self.path / TRAINING_INFO

    @property
    def position(self) -> Path:
        """Position in the data."""
        return self.path / "train_dataloader.json"

    @property
    def weights(self) -> Path:
        """Model parameters and buffers."""
        return self.path / "policy" / "weights"

    @property
    def optimizer(self) -> Path:
        """Optimizer state."""
        return self.path / "policy" / "optimizer"

    @property
    def average(self) -> Path:
        """Moving average of the model's parameters."""
        return self.path / "policy" / "ema"

    @property
    def adapter_config(self) -> Path:
        """Settings of adapters, where they are what is trained."""
        return self.path / ADAPTER_OF_STEP

    @property
    def scheduler(self) -> Path:
        """Learning rate schedule."""
        return self.path / "policy" / "scheduler.pt"

    @property
    def tokenizer(self) -> Path:
        """Tokenizer with the chat template as trained."""
        return self.path / "policy" / "tokenizer"

    @property
    def model(self) -> Path:
        """Hugging Face configuration of the model and of its generation."""
        return self.path / "policy" / "model"

    def rng(self, rank: int) -> Path:
        """Random number generators of a rank."""
        return self.path / "rng" / f"rank_{rank}.pt"


def step_folders(folder: Path) -> dict[int, Path]:
    """Every ``step_N`` folder in ``folder`` by its step, in ascending order, whole or not."""
    if not folder.is_dir():
        return {}
    found = {step: entry for entry in folder.iterdir() if (step := parse_step(entry.name)) is not None}
    return {step: found[step] for step in sorted(found) if found[step].is_dir()}


def whole_steps(folder: Path) -> Iterator[tuple[int, Path, Manifest]]:
    """The steps of ``folder`` that have a readable manifest: those whose save was finished."""
    for step, path in step_folders(folder).items():
        manifest = readable_manifest(path)
        if manifest is not None:
            yield step, path, manifest


def readable_manifest(path: Path) -> Manifest | None:
    """The manifest of a step, None when it is absent or unreadable: either way the save was not finished."""
    try:
        return manifests.read(path)
    except CheckpointError:
        return None


def find_checkpoints(training_folder: Path) -> Path:
    """The folder with the steps, given it or the training's output folder above it.

    Raises:
        CheckpointError: no step lies in either.
    """
    for folder in (training_folder / CHECKPOINTS, training_folder):
        if step_folders(folder):
            return folder
    raise CheckpointError(
        f"no checkpoint step_N lies in {training_folder / CHECKPOINTS}",
        where=str(training_folder),
        fix="name the output folder of a training that has saved at least once",
    )
