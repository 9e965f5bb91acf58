"""What the programs of ``train.py`` train on: chats, a tokenizer made of them, and random models on disk.

Run by the Python of this package, in a folder that all programs then read.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VOCABULARY = 8192
LIMIT = 1024
"""Tokens of a row, and most tokens of a chat."""

SIZES = {
    "20m": {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 8, "heads": 6},
    "100m": {"hidden_size": 768, "intermediate_size": 2304, "num_hidden_layers": 12, "heads": 12},
}
"""Llamas of 20.5 and 97.5 million parameters."""

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{{ '\n' }}{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make(folder: Path, *, rows: int, models: list[str]) -> None:
    """Write ``rows.jsonl``, ``tokenizer/`` and one folder per model."""
    chats = _chats(rows * 2)
    sample = [message["content"] for _ in range(600) for message in next(chats)]
    tokenizer = _train_tokenizer(sample)
    with open(folder / "rows.jsonl", "w") as file:
        written = 0
        while written < rows:
            messages = next(chats)
            # What is longer would be cut by some programs and dropped by others.
            if len(tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]) <= LIMIT:
                file.write(json.dumps({"messages": messages}) + "\n")
                written += 1
    for name in models:
        _save_model(folder / name, SIZES[name], tokenizer)


def _chats(seed: int) -> Iterator[list[dict[str, str]]]:
    """Chats of one to three turns of random words; tokens are lognormal with a mean near 200."""
    rng = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(6000)]

    def text(length: float) -> str:
        chosen = rng.choices(words, k=max(2, round(length)))
        return " ".join(word if rng.random() > 0.03 else str(rng.randint(0, 10**6)) for word in chosen)

    while True:
        total, turns = rng.lognormvariate(4.3, 0.75), rng.randint(1, 3)
        yield [
            {"role": role, "content": text(total / turns * share)}
            for _ in range(turns)
            for role, share in (("user", 0.35), ("assistant", 0.65))
        ]


def _train_tokenizer(sample: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(sample, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<|im_end|>")
    made.chat_template = TEMPLATE
    return made


def _save_model(folder: Path, size: dict[str, int], tokenizer: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(1)
    shape = {key: value for key, value in size.items() if key != "heads"}
    config = LlamaConfig(
        **shape,
        num_attention_heads=size["heads"],
        num_key_value_heads=size["heads"] // 2,
        vocab_size=VOCABULARY,
        max_position_embeddings=2 * LIMIT,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]), rows=int(sys.argv[2]), models=sys.argv[3:])
