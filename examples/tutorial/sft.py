# ruff: noqa: ANN001, ANN201 (the functions of the tutorial, as they are written)
"""Fine-tune on instructions, validate, save, load, evaluate, and look at samples."""

import torch

from skills_pipe.training.api import HuggingFaceModel, SFTDataset, SFTTrainer

config = "sft_config.yaml"


# Example data preprocessing
def preprocess_sft_data(raw_data):
    processed_data = []
    for item in raw_data:
        processed_item = {
            "instruction": item["instruction"],
            "input": item.get("input", ""),
            "output": item["output"],
        }
        processed_data.append(processed_item)
    return processed_data


# Load pre-trained model
model = HuggingFaceModel.from_pretrained("microsoft/DialoGPT-medium")

# Load data
train_dataset = SFTDataset("path/to/train.json")
val_dataset = SFTDataset("path/to/val.json")

# Initialize trainer
trainer = SFTTrainer(model=model, train_dataset=train_dataset, val_dataset=val_dataset, config=config)

# Start training
trainer.train()

# Save checkpoint
trainer.save_checkpoint("checkpoints/sft_model_epoch_1.pt")

# Load checkpoint
trainer.load_checkpoint("checkpoints/sft_model_epoch_1.pt")


def evaluate_model(model, test_dataset):
    model.eval()
    total_loss = 0

    with torch.no_grad():
        for batch in test_dataset:
            outputs = model(batch)
            loss = outputs.loss
            total_loss += loss.item()

    return total_loss / len(test_dataset)


def generate_sample_outputs(model, test_prompts):
    model.eval()
    outputs = []

    for prompt in test_prompts:
        response = model.generate(prompt, max_length=100)
        outputs.append({"prompt": prompt, "response": response})

    return outputs


print("mean loss of the rows:", evaluate_model(model, val_dataset))
print("perplexity:", trainer.evaluate().perplexity)
print(generate_sample_outputs(model, ["What is AI?"]))
