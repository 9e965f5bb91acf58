"""``model_config.yaml`` of an archive: what a reader has to know to use the model, by NeMo's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from skills_pipe.training.config.schema.data import ChatTokens
from skills_pipe.training.data.rows import Pieces
from skills_pipe.training.data.sources.aligner_chat import AlignerChat
from skills_pipe.training.data.sources.aligner_prompt_response import AlignerPromptResponse
from skills_pipe.training.release.archive.layout import MODEL

_ACTIVATIONS = {"silu": "fast-swiglu", "gelu_new": "gelu", "gelu_pytorch_tanh": "geglu"}
"""Hugging Face's names -> NeMo's; gated where the families that use them are."""

_PRECISIONS = {"bfloat16": "bf16", "float16": 16, "float32": 32}

_SYSTEM, _LABEL = "{system message}", "{turn 1 assistant label}"
_TURNS = (
    ("user", "{turn 1 user message}"),
    ("assistant", "{turn 1 assistant message}"),
    ("user", "{turn 2 user message}"),
    ("assistant", "{turn 2 assistant message}"),
)


def model_config(model: Path, training: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of the file.

    Args:
        model: exported folder.
        training: the configuration that it was trained with; empty where it is not known.
    """
    config = AutoConfig.from_pretrained(model)
    tokenizer = AutoTokenizer.from_pretrained(model)
    return {
        **sizes(config),
        "tokenizer": {"library": "huggingface", "type": MODEL, "use_fast": True},
        "prompt_template": prompt_template(tokenizer, training),
        "chat_template": tokenizer.chat_template,
        "special_tokens": {
            "bos": tokenizer.bos_token,
            "eos": tokenizer.eos_token,
            "pad": tokenizer.pad_token,
            "stop": _stop_tokens(model, tokenizer),
        },
    }


def sizes(config: PreTrainedConfig) -> dict[str, Any]:
    """Architecture of a model by the keys of NeMo's GPT models."""
    heads, hidden = config.num_attention_heads, config.hidden_size
    rotary = getattr(config, "rope_parameters", None) or {}
    # Families with two kinds of layers have settings for each of them.
    base = rotary.get("rope_theta") or rotary.get("full_attention", {}).get("rope_theta")
    positions = config.max_position_embeddings
    return {
        "architecture": next(iter(config.architectures or ()), None),
        "mcore_gpt": True,
        "precision": _PRECISIONS.get(str(config.dtype).removeprefix("torch.")),
        "encoder_seq_length": positions,
        "max_position_embeddings": positions,
        "num_layers": config.num_hidden_layers,
        "hidden_size": hidden,
        "ffn_hidden_size": getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * hidden,
        "num_attention_heads": heads,
        "num_query_groups": getattr(config, "num_key_value_heads", None) or heads,
        "kv_channels": getattr(config, "head_dim", None) or hidden // heads,
        "normalization": "rmsnorm" if hasattr(config, "rms_norm_eps") else "layernorm",
        "layernorm_epsilon": getattr(config, "rms_norm_eps", None) or config.layer_norm_epsilon,
        "activation": _activation(config),
        "position_embedding_type": "rope" if rotary else "learned_absolute",
        "rotary_base": base,
        "share_embeddings_and_output_weights": config.tie_word_embeddings,
        "vocab_size": config.vocab_size,
        **_experts(config),
    }


def prompt_template(tokenizer: PreTrainedTokenizerBase, training: Mapping[str, Any]) -> str:
    """The text of an example, with names in braces for what differs from row to row."""
    dataset: Mapping[str, Any] = next(iter(training.get("data", {}).get("train", ())), {})
    if dataset.get("dataset_name") == "aligner_chat":
        return _aligner_chat(ChatTokens(**(dataset.get("chat_prompt_tokens") or {})))
    if dataset.get("dataset_name") == "aligner_prompt_response":
        return str(dataset.get("prompt_template") or AlignerPromptResponse.prompt_template)
    # A template that is null in the configuration: rows held theirs already.
    chosen = training.get("policy", {}).get("tokenizer", {}).get("chat_template", "")
    if tokenizer.chat_template is None or chosen is None:
        keys = (dataset.get("input_key") or "input", dataset.get("output_key") or "output")
        return "".join(f"{{{key}}}" for key in keys)
    system = [{"role": "system", "content": _SYSTEM}]
    turns = [{"role": role, "content": text} for role, text in _TURNS]
    try:
        return _rendered(tokenizer, system + turns)
    except jinja2.TemplateError:
        # Some templates know no system message.
        return _rendered(tokenizer, turns)


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> str:
    return str(tokenizer.apply_chat_template(messages, tokenize=False))


def _aligner_chat(tokens: ChatTokens) -> str:
    """As the format itself makes it of a row."""
    turns = [{"from": role.capitalize(), "value": text} for role, text in _TURNS[:2]]
    turns[1]["label"] = _LABEL
    row = {"system": _SYSTEM, "conversations": turns, "mask": "User", "type": "VALUE_TO_TEXT"}
    pieces = [made for made in AlignerChat(tokens=tokens).rows(row, "") if isinstance(made, Pieces)]
    return "".join(segment.text for made in pieces for segment in made.segments)


def _experts(config: PreTrainedConfig) -> dict[str, Any]:
    """Of models with experts, how many there are, how many of them a token has, and their width."""
    number = getattr(config, "num_experts", None) or getattr(config, "num_local_experts", None)
    if not number:
        return {}
    return {
        "num_moe_experts": number,
        "moe_router_topk": config.num_experts_per_tok,
        "moe_ffn_hidden_size": getattr(config, "moe_intermediate_size", None) or config.intermediate_size,
    }


def _activation(config: PreTrainedConfig) -> str | None:
    name = getattr(config, "hidden_act", None) or getattr(config, "activation_function", None)
    return _ACTIVATIONS.get(name, name) if name else None


def _stop_tokens(model: Path, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """At which generation ends, as the export says."""
    if not (model / "generation_config.json").is_file():
        return [tokenizer.eos_token] if tokenizer.eos_token else []
    ends = GenerationConfig.from_pretrained(model).eos_token_id
    each = ends if isinstance(ends, list) else [ends] if ends is not None else []
    return [str(tokenizer.convert_ids_to_tokens(index)) for index in each]
