"""Several validation sets in a real run: the loss of each by name, and over all of their tokens."""

import json
from dataclasses import replace

import numpy as np
import pytest

from skills_pipe.artifacts.metrics import read_metrics
from skills_pipe.errors import ConfigError
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.from_config import TrainingData
from skills_pipe.training.data.report import DataReport
from skills_pipe.training.data.template import PASSTHROUGH, ChatTemplate
from skills_pipe.training.setup import Parts
from skills_pipe.training.sft import main
from tests.training.sft_arguments import STEPS, arguments
from tests.training.tiny import chat_rows, tiny_model, tiny_tokenizer, write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def losses(output):
    lines = read_metrics(output / "training-logs" / "metrics.jsonl")
    (line,) = [line for line in lines if line["step"] == STEPS and "validation/val_loss" in line]
    return {name: value for name, value in line.items() if name.endswith("val_loss")}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    one, two = chat_rows(5, seed=1), [*chat_rows(9, seed=2), *chat_rows(2, seed=3)]
    files = {"one": one, "two": two, "both": one + two}
    return {name: write_jsonl(folder / f"{name}.jsonl", rows) for name, rows in files.items()}


def test_losses_by_name_and_over_all_tokens(tiny_model_folder, chat_data, sets, tmp_path):
    """One run validates on two sets, another, with the same steps, on their rows in one file."""
    several, single = tmp_path / "several", tmp_path / "single"
    nested = "[" + ", ".join(f"{{data_path: {sets[name]}}}" for name in ("one", "two")) + "]"
    best = ["sft.val_period=5", "checkpointing.metric_name=val:two/val_loss"]
    assert main(arguments(tiny_model_folder, chat_data, several, f"++data.validation={nested}", *best)) == 0
    assert main(arguments(tiny_model_folder, chat_data, single, "sft.val_period=5", validation=sets["both"])) == 0
    info = json.loads((several / "checkpoints" / f"step_{STEPS}" / "training_info.json").read_text())
    named, joined = losses(several), losses(single)
    assert named.keys() == {"validation/val_loss", "validation/one/val_loss", "validation/two/val_loss"}
    assert joined.keys() == {"validation/val_loss"}
    assert named["validation/val_loss"] == pytest.approx(joined["validation/val_loss"], rel=1e-6)
    assert info["val:two/val_loss"] == named["validation/two/val_loss"], "what checkpoints are ranked by"
    means = [named[f"validation/{name}/val_loss"] for name in ("one", "two")]
    assert min(means) < named["validation/val_loss"] < max(means)
    assert named["validation/val_loss"] != pytest.approx(sum(means) / 2, rel=1e-6), "no mean of means"


def documents(tokens):
    ids = np.ones(tokens, np.int64)
    return SftDataset(ids, np.ones(tokens, bool), np.array([0, tokens]), DataReport(documents=1))


def test_documents_of_the_validation_must_fit_into_the_positions_of_the_model_too():
    """Before the training begins, not in its first validation."""
    model = tiny_model("gpt2", max_position_embeddings=64)
    template = ChatTemplate(text=PASSTHROUGH)
    fitting = TrainingData(train=documents(8), validation={"long": documents(64)}, template=template)
    Parts.of(tiny_tokenizer(), fitting, model)
    with pytest.raises(ConfigError, match="a document has 65 tokens, and the model has 64 positions"):
        Parts.of(tiny_tokenizer(), replace(fitting, validation={"long": documents(65)}), model)
