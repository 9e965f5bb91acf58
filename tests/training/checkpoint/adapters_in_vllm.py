"""Adapter folders as vLLM's own loader reads them; run by a Python with vLLM, which knows nothing of ours.

    python adapters_in_vllm.py FOLDER=FAMILY ...

It loads as vLLM's workers do, for the model classes of vLLM, and writes what it has into each folder:
``vllm.safetensors`` with the two matrices of each module, ``vllm.json`` with their ranks and scales, or with the error
that it ended with.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from vllm.config.lora import LoRAConfig
from vllm.lora import lora_model
from vllm.lora.peft_helper import PEFTHelper

CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
"""By the module in ``vllm.model_executor.models``."""

MAX_RANK = 16
"""What ``--max-lora-rank`` is unless it is given."""


def main() -> None:
    # Memory that a GPU can read by itself; where there is none, it cannot be had.
    lora_model.PIN_MEMORY = torch.cuda.is_available()
    for argument in sys.argv[1:]:
        folder, _, family = argument.rpartition("=")
        (Path(folder) / "vllm.json").write_text(json.dumps(read(Path(folder), family)))


def read(folder: Path, family: str) -> dict[str, Any]:
    model = getattr(importlib.import_module(f"vllm.model_executor.models.{family}"), CLASSES[family])
    # What an instance finds among its layers: those that vLLM fuses by their own names, and the two that it does not.
    modules = {part for parts in model.packed_modules_mapping.values() for part in parts} | {"o_proj", "down_proj"}
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    try:
        helper = PEFTHelper.from_local_dir(str(folder), 512)
        helper.validate_legal(LoRAConfig(max_lora_rank=MAX_RANK))
        found = lora_model.LoRAModel.from_local_checkpoint(
            str(folder),
            modules,
            helper,
            lora_model_id=1,
            device="cpu",
            dtype=torch.float32,
            weights_mapper=mapper.get_rename_mapper() if mapper is not None else None,
        )
    except ValueError as error:
        return {"refused": str(error)}
    matrices = {f"{name}.lora_a": lora.lora_a for name, lora in found.loras.items()}
    matrices |= {f"{name}.lora_b": lora.lora_b for name, lora in found.loras.items()}
    save_file(matrices, folder / "vllm.safetensors")
    return {"modules": {name: {"rank": lora.rank, "scale": lora.scaling} for name, lora in found.loras.items()}}


if __name__ == "__main__":
    main()
