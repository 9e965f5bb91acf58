"""One short training with validation, and its model."""

from __future__ import annotations

from pathlib import Path

import pytest

from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.sft import main
from tests.training.sft_arguments import arguments
from tests.training.tiny import chat_rows, write_jsonl


@pytest.fixture(scope="package")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """13 chats that are not trained on."""
    return write_jsonl(tmp_path_factory.mktemp("held-out") / "chats.jsonl", chat_rows(13, seed=1))


@pytest.fixture(scope="package")
def run(tiny_model_folder: Path, chat_data: Path, held_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a training in bfloat16, validated and saved at steps 5 and 10."""
    output = tmp_path_factory.mktemp("run")
    extra = ["sft.val_period=5", "policy.precision=bfloat16"]
    assert main(arguments(tiny_model_folder, chat_data, output, *extra, validation=held_out)) == 0
    return output


@pytest.fixture(scope="package")
def model(run: Path) -> Path:
    """The model of its last step. Read it, don't change it."""
    return export(Export(training_folder=run, output=run / "hf_model_step_10"))
