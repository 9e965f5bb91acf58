"""The tutorial's Python and the trlX example, as they are written but for the lines that import.

Replaced are names of models and paths; steps and log folders come from files of the world of each test.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path

import pytest
import torch

from skills_pipe.errors import ConfigError
from skills_pipe.training.api.trlx import TRLConfig
from tests.training.api.seed import alpaca_rows, tiny_folder, write_array

EXAMPLES = Path(__file__).parents[2] / "examples"

TUTORIAL = (
    '''
def preprocess_sft_data(raw_data):
    processed_data = []
    for item in raw_data:
        processed_item = {
            "instruction": item["instruction"],
            "input": item.get("input", ""),
            "output": item["output"]
        }
        processed_data.append(processed_item)
    return processed_data
''',
    '''
# Load pre-trained model
model = HuggingFaceModel.from_pretrained("microsoft/DialoGPT-medium")
''',
    '''
# Load data
train_dataset = SFTDataset("path/to/train.json")
val_dataset = SFTDataset("path/to/val.json")

# Initialize trainer
trainer = SFTTrainer(
    model=model,
    train_dataset=train_dataset,
    val_dataset=val_dataset,
    config=config
)

# Start training
trainer.train()
''',
    '''
# Save checkpoint
trainer.save_checkpoint("checkpoints/sft_model_epoch_1.pt")

# Load checkpoint
trainer.load_checkpoint("checkpoints/sft_model_epoch_1.pt")
''',
    '''
def evaluate_model(model, test_dataset):
    model.eval()
    total_loss = 0

    with torch.no_grad():
        for batch in test_dataset:
            outputs = model(batch)
            loss = outputs.loss
            total_loss += loss.item()

    return total_loss / len(test_dataset)
''',
    '''
def generate_sample_outputs(model, test_prompts):
    model.eval()
    outputs = []

    for prompt in test_prompts:
        response = model.generate(prompt, max_length=100)
        outputs.append({
            "prompt": prompt,
            "response": response
        })

    return outputs
''',
)  # fmt: skip

TRLX = """
# 1. Prepare training samples
samples = [
"Human: What is AI?\\nAssistant: AI stands for Artificial Intelligence.",
"Human: Hello\\nAssistant: Hi there!",
]
# 2. Configure SFT with NeMo
config = TRLConfig.load_yaml("configs/nemo_sft_config.yml")
# 3. Train
trainer = trlx.train(
samples=samples,
config=config,
)
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with the files that the tutorial and the example name, the model tiny."""
    tiny_folder(tmp_path / "base", max_position_embeddings=512)
    (tmp_path / "path" / "to").mkdir(parents=True)
    raw = [{name: value for name, value in row.items() if value} for row in alpaca_rows(8)]
    write_array(tmp_path / "path" / "to" / "train.json", raw)
    write_array(tmp_path / "path" / "to" / "val.json", alpaca_rows(4, start=20))
    settings = (EXAMPLES / "tutorial" / "sft_config.yaml").read_text()
    (tmp_path / "sft_config.yaml").write_text(smaller(settings))
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "nemo_sft_config.yml").write_text(
        smaller((EXAMPLES / "trlx" / "configs" / "nemo_sft_config.yml").read_text())
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def smaller(text):
    return re.sub("microsoft/DialoGPT-medium|meta-llama/Llama-3.1-8B", "base", text)


def code_of(text):
    """The words of a script without its layout, imports and comments."""
    kept = [line for line in text.splitlines() if not re.match(r"\s*(from|import|#)", line)]
    return re.sub(r"[\s,]+", "", "".join(kept))


def test_the_tutorial_runs_as_it_is_written(world):
    scope = {"torch": torch, "config": "sft_config.yaml"}
    exec("from skills_pipe.training.api import HuggingFaceModel, SFTDataset, SFTTrainer", scope)
    for block in TUTORIAL:
        exec(smaller(block), scope)
    before = scope["HuggingFaceModel"].from_pretrained("base")
    assert scope["evaluate_model"](scope["model"], scope["val_dataset"]) < scope["evaluate_model"](
        before, scope["val_dataset"]
    )
    (sample,) = scope["generate_sample_outputs"](scope["model"], ["What is AI?"])
    assert sample["prompt"] == "What is AI?"
    assert isinstance(sample["response"], str)
    assert (world / "checkpoints" / "sft_model_epoch_1.pt").is_file()
    assert scope["preprocess_sft_data"]([{"instruction": "a", "output": "b"}]) == [
        {"instruction": "a", "input": "", "output": "b"}
    ]
    metrics = [json.loads(line) for line in (world / "logs" / "metrics.jsonl").read_text().splitlines()]
    assert {"train/loss", "train/lr", "train/tokens_per_second"} <= metrics[0].keys()


def test_the_example_of_trlx_runs_as_it_is_written(world):
    scope = {}
    exec("from skills_pipe.training.api import trlx\nfrom skills_pipe.training.api.trlx import TRLConfig", scope)
    exec(TRLX, scope)
    losses = [
        json.loads(line)["train/loss"] for line in (world / "trlx-run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert len(losses) == 10
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("name", "blocks"), [("tutorial/sft.py", TUTORIAL), ("trlx/nemo_sft.py", (TRLX,))])
def test_the_examples_are_what_is_tested(name, blocks):
    script = code_of((EXAMPLES / name).read_text())
    assert all(code_of(textwrap.dedent(block)) in script for block in blocks)


def test_pipeline_parallelism_of_trlx_is_refused(world):
    from skills_pipe.training.api import trlx

    path = Path("configs/nemo_sft_config.yml")
    path.write_text(path.read_text().replace("pipeline_model_parallel_size: 1", "pipeline_model_parallel_size: 2"))
    with pytest.raises(ConfigError, match="pipeline"):
        trlx.train(samples=["a text"], config=TRLConfig.load_yaml(path))
