"""What lies where in an archive of a model.

::

    megatron_gpt_sft.nemo     a tar file, not compressed
      model_config.yaml       sizes of the model by NeMo's names, prompt template, special tokens
      hf_model/               the exported model: safetensors, configuration, tokenizer, lineage, manifest

The weights are Hugging Face's, which NeMo's converters read from ``hf_model``; Megatron's own layout of them
(``model_weights``) is not written and not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

SUFFIX: Final = ".nemo"
MODEL_CONFIG: Final = "model_config.yaml"
MODEL: Final = "hf_model"
MEGATRON_WEIGHTS: Final = ("model_weights", "model_weights.ckpt")
"""How archives that NeMo wrote name their weights."""

KIND: Final = "archive"


def is_archive(path: Path) -> bool:
    """Whether ``path`` is an archive by its name, or a folder that one was unpacked to."""
    return path.suffix == SUFFIX or (path / MODEL_CONFIG).is_file()
