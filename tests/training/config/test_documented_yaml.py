"""Configurations as the guides of NeMo-RL and NeMo-Skills write them are accepted as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from skills_pipe.errors import ConfigError
from skills_pipe.training.config import load_config
from skills_pipe.training.config.adapters import adapter_spec

EXAMPLE = Path(__file__).parents[3] / "examples" / "configs" / "sft.yaml"
NEEDED = ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"]

CUSTOM_TEMPLATE = """
policy:
  tokenizer:
    custom_template: "{% for message in messages %}{%- if message['role'] == 'system' %}{{'Context: ' + message['content'].strip()}}{%- elif message['role'] == 'user' %}{{' Question: ' + message['content'].strip() + ' Answer: '}}{%- elif message['role'] == 'assistant' %}{{message['content'].strip()}}{%- endif %}{% endfor %}"
"""  # noqa: E501

PASSTHROUGH = """
policy:
  tokenizer:
    chat_template: NULL
"""

RESPONSE_DATASET = """
data:
  dataset_name: ResponseDataset
  train_data_path: <PathToTrainingDataset>  # e.g., /path/to/local/dataset.jsonl or hf_org/hf_dataset_name (HuggingFace)
  val_data_path: <PathToValidationDataset>
  input_key: question
  output_key: answer
  train_split: train
  val_split: validation
"""

OPENAI_FORMAT = """
data:
  dataset_name: openai_format
  train_data_path: "/path/to/train.jsonl" # Path to training data
  val_data_path: "/path/to/val.jsonl" # Path to validation data
  chat_key: "messages" # Key for messages in the data (default: "messages")
  system_key: null # Key for system message in the data (optional)
  system_prompt: null # Default system prompt if not in data (optional)
  tool_key: "tools" # Key for tools in the data (default: "tools")
  use_preserving_dataset: false # Set to true for heterogeneous tool schemas (see below)
"""

LORA = """
policy:
  dtensor_cfg:
    lora_cfg:
      enabled: False # Set to True to enable LoRA fine-tuning
      target_modules: [] # List of module names to apply LoRA
      exclude_modules: [] # List of module names to exclude from LoRA
      match_all_linear: true # Apply LoRA to all linear layers
      dim: 8 # LoRA rank (r): controls adaptation capacity
      alpha: 32 # LoRA scaling factor (effective lr = alpha/dim)
      dropout: 0.0 # Dropout probability for LoRA layers
      dropout_position: "post" # Dropout position: "pre" or "post"
      lora_A_init: "xavier" # Initialization method: "xavier" or "uniform"
      use_triton: true # Use Triton-optimized kernels (DTensor v2 path)
"""

MEGATRON_LORA = """
policy:
  megatron_cfg:
    peft:
      enabled: false # Set to True to enable LoRA fine-tuning
      target_modules: [] # List of module names to apply LoRA, defaults to all linear layers
      exclude_modules: [] # List of module names not to apply LoRa.
      dim: 32 # LoRA rank (r): controls adaptation capacity
      alpha: 32 # LoRA scaling factor (effective lr = alpha/dim)
      dropout: 0.0 # Dropout probability for LoRA layers
      dropout_position: "pre" # Dropout position: "pre" or "post"
      lora_A_init_method: "xavier" # Initialization method for lora A: "xavier" or "uniform"
      lora_B_init_method: "zero" # Initialization method for lora B: "zero"
      a2a_experimental: false # Enables the experimental All-to-All (A2A) communication strategy.
      lora_dtype: None # Weight's dtype
"""


def load(tmp_path, text, *overrides):
    path = tmp_path / "guide.yaml"
    path.write_text(text)
    return load_config(path, list(overrides))


def test_a_custom_template_under_its_documented_name(tmp_path):
    template = load(tmp_path, CUSTOM_TEMPLATE, *NEEDED).policy.tokenizer.chat_template
    assert template.startswith("{% for message in messages %}")
    assert "' Answer: '" in template


def test_a_passthrough_template(tmp_path):
    assert load(tmp_path, PASSTHROUGH, *NEEDED).policy.tokenizer.chat_template is None


def test_a_response_dataset(tmp_path):
    data = load(tmp_path, RESPONSE_DATASET, NEEDED[0]).data
    assert data.train[0].data_path == "<PathToTrainingDataset>"
    assert (data.train[0].split, data.validation[0].split) == ("train", "validation")
    assert (data.train[0].input_key, data.validation[0].output_key) == ("question", "answer")


def test_an_openai_format_dataset(tmp_path):
    (dataset,) = load(tmp_path, OPENAI_FORMAT, NEEDED[0]).data.train
    assert dataset.dataset_name == "openai_format"
    assert (dataset.chat_key, dataset.tool_key, dataset.system_key) == ("messages", "tools", None)


def test_adapters_on_the_fsdp_backend(tmp_path):
    lora = load(tmp_path, LORA, *NEEDED).policy.dtensor_cfg.lora_cfg
    assert (lora.dim, lora.alpha, lora.match_all_linear, lora.dropout_position) == (8, 32, True, "post")


def test_adapters_on_the_megatron_backend(tmp_path):
    peft = load(tmp_path, MEGATRON_LORA, *NEEDED).policy.megatron_cfg.peft
    assert (peft.dim, peft.dropout_position, peft.lora_A_init_method, peft.lora_dtype) == (32, "pre", "xavier", None)


def test_a_misspelt_key_in_such_a_file_is_found(tmp_path):
    with pytest.raises(ConfigError, match=r"guide\.yaml:11\): did you mean 'policy\.dtensor_cfg\.lora_cfg\.dropout'"):
        load(tmp_path, LORA.replace("dropout: 0.0", "droput: 0.0"), *NEEDED)


def test_the_example_with_the_documented_overrides():
    config = load_config(EXAMPLE, ["cluster.gpus_per_node=1", 'logger.wandb.name="sft-dev-1-gpu"'])
    assert config.cluster.gpus_per_node == 1
    assert config.logger.wandb.name == "sft-dev-1-gpu"
    assert all(Path(EXAMPLE.parents[2], dataset.data_path).is_file() for dataset in config.data.train)


def test_the_documented_override_for_adapters():
    spec = adapter_spec(load_config(EXAMPLE, ["policy.dtensor_cfg.lora_cfg.enabled=true"]).policy)
    assert (spec.dim, spec.alpha, spec.scale, spec.targets) == (8, 32, 4.0, ())


def test_what_is_documented_and_not_there_yet_is_refused_not_ignored():
    overrides = [
        "policy.dtensor_cfg.enabled=false",
        "policy.megatron_cfg.enabled=true",
        "policy.megatron_cfg.peft.enabled=true",
    ]
    with pytest.raises(ConfigError, match="yet"):
        load_config(EXAMPLE, overrides)


def test_the_overrides_of_the_training_page():
    config = load_config(
        None,
        [
            *NEEDED,
            "++sft.max_num_epochs=2",
            "++sft.max_num_steps=1000",
            "++policy.train_global_batch_size=32",
            "++policy.train_micro_batch_size=1",
            "++policy.tensor_model_parallel_size=1",
            "++policy.megatron_cfg.expert_model_parallel_size=2",
            "++policy.megatron_cfg.expert_tensor_parallel_size=4",
            "++policy.sequence_packing.enabled=True",
            "++policy.context_parallel_size=1",
        ],
    )
    assert (config.sft.max_num_epochs, config.sft.max_num_steps) == (2, 1000)
    assert config.policy.megatron_cfg.expert_tensor_parallel_size == 4


def test_what_the_launcher_passes():
    config = load_config(
        None,
        [
            "++policy.model_name=meta-llama/Llama-3.1-8B",
            "++cluster.gpus_per_node=8",
            "++cluster.num_nodes=2",
            "++checkpointing.checkpoint_must_save_by=00:03:45:00",
            "++logger.log_dir=/out/training-logs",
            "++checkpointing.checkpoint_dir=/out/checkpoints",
            "++policy.dtensor_cfg.enabled=true",
            "++policy.megatron_cfg.enabled=false",
            "+data.train_data_path=/data/sft-data.jsonl",
            "+data.val_data_path=/data/val.jsonl",
            "++logger.wandb_enabled=False",
            "++logger.wandb.project=nemo-skills",
            "++logger.wandb.name=my-training-job",
            "++logger.wandb.id=my-training-job-nemo-skills",
        ],
    )
    assert config.logger.tensorboard.log_dir == "/out/training-logs/tensorboard"
    assert config.data.validation[0].data_path == "/data/val.jsonl"
