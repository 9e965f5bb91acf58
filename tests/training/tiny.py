"""Small random models, a byte-level tokenizer and chat rows: enough to train for real in a second."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from skills_pipe.training.config.families import ARCHITECTURES as ARCHITECTURES

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>")

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML with a beginning-of-text token and Hugging Face's marks around what the assistant says."""


_PECULIARITIES: dict[str, dict[str, Any]] = {
    # Caps that the small numbers of a random model reach, and a window within its documents.
    "gemma2": {
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 0.05,
        "final_logit_softcapping": 0.1,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gemma3_text": {
        "query_pre_attn_scalar": 16,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "gpt_oss": {
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
"""What is special in a family, in a size that a tiny model shows."""


def tiny_tokenizer(*, chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """A tokenizer of 256 byte tokens and five special ones: any text, no training, no download."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<|im_end|>"
    )
    fast.chat_template = chat_template
    return fast


def tiny_config(architecture: str = "llama", **changes: Any) -> PreTrainedConfig:
    """Configuration of a two-layer model with grouped-query attention and the tokenizer's vocabulary."""
    sizes = {
        "vocab_size": 264,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 4,
    }
    if architecture == "mistral":
        sizes["sliding_window"] = None
    if architecture == "qwen3_moe":
        sizes |= {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True}
    sizes |= _PECULIARITIES.get(architecture, {})
    if architecture == "gpt2":
        for name in ("intermediate_size", "num_key_value_heads", "head_dim"):
            del sizes[name]
        # Of this family alone dropout is on unless it is turned off.
        sizes |= {"n_inner": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return AutoConfig.for_model(architecture, **(sizes | changes))


def tiny_model(architecture: str = "llama", *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random fp32 model; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(tiny_config(architecture, **changes), dtype=torch.float32)


def save_tiny_model(folder: Path, architecture: str = "llama", *, seed: int = 0, **changes: Any) -> Path:
    """Write a random model with its tokenizer as a Hugging Face folder and return the folder."""
    tiny_model(architecture, seed=seed, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def chat_rows(count: int, *, seed: int = 0) -> list[dict[str, Any]]:
    """Additions as one-turn chats of varied length."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        a, b, words = torch.randint(1, 100, (3,), generator=generator).tolist()
        question = f"What is {a} plus {b}?" + " Please." * (words % 4)
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": f"{a} + {b} = {a + b}"}]
        rows.append({"messages": messages})
    return rows


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows as JSON lines and return the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
