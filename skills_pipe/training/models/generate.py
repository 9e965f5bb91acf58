"""What a model writes after prompts, of which several go through it at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

_NO_END = 1 << 40
_NEUTRAL = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
"""Transformers by itself takes one of the 50 most likely tokens."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """How tokens are chosen, and when that ends.

    Attributes:
        stop_ids: a text ends with the first of these tokens.
        pad_id: token that fills up the shorter prompts of a batch; the model does not see it.
        sampling: arguments of :meth:`transformers.GenerationMixin.generate` that choose at random, such as
            ``temperature``; without any it is the most likely token each time. What is not given is neutral, whatever
            is published with the model: among all tokens, by their probabilities.
        batch_size: prompts that go through the model at once.
        rank, ranks: which share of each batch is generated here, where ranks hold one model together. All of them pass
            the same prompts.
    """

    stop_ids: tuple[int, ...]
    pad_id: int
    sampling: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int = 16
    rank: int = 0
    ranks: int = 1


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the model goes on with.

    Attributes:
        ids: its tokens, one at least.
        limit: most tokens that are written after it, one at least.
    """

    ids: tuple[int, ...]
    limit: int


def positions_left(config: PreTrainedConfig, tokens: int) -> int:
    """How many tokens may follow ``tokens`` others; of rotary positions there is no end."""
    return config.n_positions - tokens if config.model_type == "gpt2" else _NO_END


def generate(model: PreTrainedModel, prompts: Sequence[Prompt], how: Generation) -> dict[int, list[int]]:
    """The tokens written after each prompt, the stop token with them if it comes, by the number of the prompt.

    Without random choices they are those of each prompt alone. With several ranks each gets its share only. Dropout is
    off meanwhile; the model is left as it was.
    """
    written: dict[int, list[int]] = {}
    with _writing(model, how):
        for group in _groups(model, prompts, how):
            # A rank without a prompt of its own keeps the others company: each layer is gathered from all of them.
            mine = group[how.rank :: how.ranks] or group[:1]
            found = _batch(model, [prompts[index] for index in mine], max(prompts[index].limit for index in group), how)
            if len(group) > how.rank:
                written |= dict(zip(mine, found, strict=True))
    return written


def _groups(model: PreTrainedModel, prompts: Sequence[Prompt], how: Generation) -> list[list[int]]:
    """Numbers of the prompts that go together: those of similar length, within the positions that a model has."""
    groups: list[list[int]] = []
    for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index].ids)):
        group = [*(groups[-1] if groups else []), index]
        longest, limit = len(prompts[index].ids), max(prompts[member].limit for member in group)
        # All rows of a batch grow until its last one has ended.
        full = len(group) > how.batch_size * how.ranks or limit > positions_left(model.config, longest)
        if groups and not full:
            groups[-1] = group
        else:
            groups.append([index])
    return groups


def _batch(model: PreTrainedModel, prompts: Sequence[Prompt], limit: int, how: Generation) -> list[list[int]]:
    """The tokens written after each prompt; their ends are at one place, so that the next token is too."""
    longest = max(len(prompt.ids) for prompt in prompts)
    rows = [[how.pad_id] * (longest - len(prompt.ids)) + list(prompt.ids) for prompt in prompts]
    seen = [[0] * (longest - len(prompt.ids)) + [1] * len(prompt.ids) for prompt in prompts]
    written: Tensor = model.generate(
        torch.tensor(rows, device=model.device),
        attention_mask=torch.tensor(seen, device=model.device),
        max_new_tokens=limit,
        eos_token_id=list(how.stop_ids) or None,
        pad_token_id=how.pad_id,
        use_cache=True,
        synced_gpus=how.ranks > 1,
        **({**_NEUTRAL, **how.sampling} if how.sampling else {"do_sample": False}),
    )
    after = written[:, longest:].tolist()
    return [_until_stop(row[: prompt.limit], how.stop_ids) for row, prompt in zip(after, prompts, strict=True)]


def _until_stop(ids: list[int], stop_ids: Sequence[int]) -> list[int]:
    """The tokens up to the first stop token and with it."""
    ends = (place + 1 for place, token in enumerate(ids) if token in stop_ids)
    return ids[: next(ends, len(ids))]


@contextmanager
def _writing(model: PreTrainedModel, how: Generation) -> Iterator[None]:
    """Dropout off, and an attention that has a cache and takes a mask."""
    training, attention, published = model.training, model.config._attn_implementation, model.generation_config
    model.eval()
    # What is published with models, as a penalty of repetitions, would mix into what was asked for.
    model.generation_config = GenerationConfig()
    # Of some families (Gemma 2, gpt-oss) transformers has no other attention than its plain one.
    model.set_attn_implementation("sdpa" if model._supports_sdpa else "eager")
    try:
        # A token at a time, with a cache that grows: compiled layers would have to be so anew.
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        model.generation_config = published
        model.set_attn_implementation(attention)
        model.train(training)
