"""A Hugging Face model with its tokenizer: load, loss of rows, text for a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skills_pipe.errors import DataError, OptionError
from skills_pipe.training.api.dataset import row_format
from skills_pipe.training.data.batches import build_microbatch
from skills_pipe.training.data.chunk import ChunkEncoder, DataSettings, Recipe
from skills_pipe.training.data.dataset import SftDataset, narrow, offsets_of
from skills_pipe.training.data.report import DataReport
from skills_pipe.training.data.rows import BadRow, Conversation
from skills_pipe.training.data.sources.alpaca import alpaca_prompt
from skills_pipe.training.data.template import INFER, resolve_template
from skills_pipe.training.data.tokenizer import load_tokenizer
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.generate import Generation, Prompt, generate, positions_left
from skills_pipe.training.models.load import load_model
from skills_pipe.training.models.lora.merge import merged
from skills_pipe.training.models.loss import SupervisedLoss
from skills_pipe.training.models.spec import ModelSpec

_LONGEST = 1 << 20
"""Tokens of a row whose loss is asked for: as many as memory holds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelOutput:
    """What a model says of rows.

    Attributes:
        loss: mean cross entropy over the trained tokens of all rows, in nats, each with the weight that its row gives
            it; gradients flow through it.
        tokens: how many those are.
    """

    loss: Tensor
    tokens: int


class HuggingFaceModel:
    """A causal language model that is trained in place.

    Args:
        module: the model.
        tokenizer: its tokenizer.
        name: where both came from.
    """

    def __init__(self, module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.name = name

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> HuggingFaceModel:
        """The model of a folder, or of an id on the hub, in float32.

        Raises:
            ConfigError: there is no such model, or it is of a family that cannot be trained.
        """
        module = load_model(ModelSpec(name=str(name), revision=revision))
        return cls(module.eval(), load_tokenizer(str(name)), str(name))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model and tokenizer as a folder that :meth:`from_pretrained` reads; adapters are merged."""
        with merged(self.module):
            self.module.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def gather(self) -> None:
        """Make the model whole after several ranks have trained it, of which each holds a part; all of them call it.

        It is another module then: what was sharded stays so.
        """
        state = {name: _whole(value) for name, value in self.module.state_dict().items()}
        module = load_model(ModelSpec(name=self.name))
        module.load_state_dict(state)
        self.module = module.to(self.module.device).eval()

    def eval(self) -> HuggingFaceModel:
        """Turn dropout off."""
        self.module.eval()
        return self

    def train(self, mode: bool = True) -> HuggingFaceModel:
        """Turn dropout on, where the model has any."""
        self.module.train(mode)
        return self

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The weights."""
        return self.module.parameters()

    def __call__(self, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> ModelOutput:
        """The loss of one row, or of several, as training would compute it.

        Raises:
            DataError: a row cannot be read, or has nothing to train.
        """
        documents = self._encode([rows] if isinstance(rows, Mapping) else rows)
        batch = build_microbatch(documents, range(len(documents))).to(self.module.device)
        tokens = int(documents.targets.sum())
        weight = float(batch.weights.sum(dtype=torch.float64)) if batch.weights is not None else tokens
        loss = SupervisedLoss(self.module)(
            batch.input_ids,
            batch.position_ids,
            batch.labels,
            Documents.of(batch.cu_seqlens),
            scale=1.0 / weight,
            weights=batch.weights,
        )
        return ModelOutput(loss=loss, tokens=tokens)

    def generate(self, prompt: str | Mapping[str, Any], max_length: int = 256, *, temperature: float = 0.0) -> str:
        """What the model writes after a prompt, without the prompt.

        Args:
            prompt: text, taken as it is; or a row without its answer, which is asked as training would.
            max_length: tokens of prompt and answer together.
            temperature: 0 takes the most likely token each time; with another one all tokens may come, whatever the
                model's ``generation_config.json`` says of ``top_k`` and the like.

        Raises:
            OptionError: the prompt alone has that many tokens, or is none; or the model has no position for all.
            DataError: the tokenizer has no chat template for messages, or it refuses them.
        """
        ids = self._ids(self._prompt_text(prompt))
        if len(ids) >= max_length:
            raise OptionError(
                f"the prompt has {len(ids)} tokens, nothing is left to write", where=f"max_length={max_length}"
            )
        sampling = {"temperature": temperature} if temperature > 0 else {}
        return self._written([Prompt(ids=ids, limit=max_length - len(ids))], sampling, 1)[0]

    def generate_all(
        self,
        prompts: Sequence[str | Mapping[str, Any]],
        max_new_tokens: int = 256,
        *,
        sampling: Mapping[str, Any] | None = None,
        batch_size: int = 16,
    ) -> list[str]:
        """What the model writes after each prompt, as :meth:`generate` would, with several of them at once.

        Args:
            prompts: texts or rows.
            max_new_tokens: most tokens of an answer.
            sampling: arguments that choose tokens at random, such as ``{"temperature": 0.7, "top_p": 0.9}``; without
                any it is the most likely token each time. What is published with the model adds nothing.
            batch_size: prompts that go through the model at once.

        Raises:
            OptionError: the model has no position for all tokens of a prompt and its answer.
        """
        asked = [Prompt(ids=self._ids(self._prompt_text(prompt)), limit=max_new_tokens) for prompt in prompts]
        return self._written(asked, sampling or {}, batch_size)

    def _encode(self, rows: Sequence[Mapping[str, Any]]) -> SftDataset:
        read = [found for index, row in enumerate(rows, start=1) for found in row_format(row).rows(row, f"row {index}")]
        form = next((row.form for row in read if isinstance(row, Conversation)), None)
        recipe = Recipe(
            tokenizer=self.tokenizer,
            template=resolve_template(INFER, self.tokenizer, None, form),
            settings=DataSettings(max_length=_LONGEST),
        )
        chunk = ChunkEncoder(recipe).encode(read)
        faults = [*(row for row in read if isinstance(row, BadRow)), *chunk.faults]
        if faults:
            raise DataError(faults[0].what, where=faults[0].where)
        if not np.any(chunk.loss_mask):
            raise DataError("nothing in the rows is trained, so they have no loss")
        return SftDataset(
            narrow(chunk.token_ids), chunk.loss_mask, offsets_of(chunk.lengths), DataReport(documents=len(read))
        )

    def _prompt_text(self, prompt: str | Mapping[str, Any]) -> str:
        if isinstance(prompt, str):
            return prompt
        if "messages" in prompt:
            template = resolve_template(INFER, self.tokenizer, None, "chat")
            return template.render(list(prompt["messages"]), prompt.get("tools"), prompt=True)
        if "instruction" in prompt:
            return alpaca_prompt(prompt["instruction"], prompt.get("input") or "")
        if "input" in prompt:
            return str(prompt["input"])
        raise OptionError(f"no prompt among the keys {', '.join(map(repr, prompt))}", where="prompt")

    def _ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a prompt; as in training, the first one begins the text, where the tokenizer has such a token."""
        bos = self.tokenizer.bos_token
        whole = text if not bos or text.startswith(bos) else bos + text
        ids = tuple(self.tokenizer(whole, add_special_tokens=False)["input_ids"])
        if not ids:
            raise OptionError("the prompt is empty, and the tokenizer has no token to begin with", where="prompt")
        return ids

    def _written(self, prompts: Sequence[Prompt], sampling: Mapping[str, Any], batch_size: int) -> list[str]:
        for number, prompt in enumerate(prompts, start=1):
            left = positions_left(self.module.config, len(prompt.ids))
            if prompt.limit > left:
                raise OptionError(
                    f"prompt {number} has {len(prompt.ids)} tokens and its answer up to {prompt.limit}: the model has "
                    f"{len(prompt.ids) + left} positions for both",
                    where="max_length, max_new_tokens",
                    fix=f"ask for {left} new tokens at most" if left > 0 else "shorten the prompt",
                )
        how = Generation(
            stop_ids=tuple(self._stop_ids()),
            pad_id=self.tokenizer.pad_token_id,
            sampling=sampling,
            batch_size=batch_size,
        )
        written = generate(self.module, prompts, how)
        return [self.tokenizer.decode(written[index], skip_special_tokens=True) for index in range(len(prompts))]

    def _stop_ids(self) -> list[int]:
        known = self.module.generation_config.eos_token_id
        own = [known] if isinstance(known, int) else list(known or [])
        return sorted({*own, *([] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id])})


def _whole(value: Tensor) -> Tensor:
    """A tensor with what the other ranks hold of it."""
    return value.full_tensor().detach() if isinstance(value, DTensor) else value.detach()
