"""The fsdp backend: torch's FSDP2 over several ranks, plain torch in one process, with the same arithmetic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.base import Judge, StepResult, require_finite
from skills_pipe.training.backends.fsdp.build import build
from skills_pipe.training.backends.fsdp.clip import clip_gradients
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.backends.fsdp.shard import reshard
from skills_pipe.training.checkpoint.ranks import on_all
from skills_pipe.training.checkpoint.state import Trainee
from skills_pipe.training.data.batches import Microbatch
from skills_pipe.training.distributed import World
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.expert_load import ExpertLoad, load_metrics
from skills_pipe.training.models.generate import Generation, Prompt
from skills_pipe.training.models.pretrained.weights import PretrainedWeights
from skills_pipe.training.optimizers.rehearsal import rate_of


class FsdpBackend:
    """Trains ``model`` over the ranks of ``world``; see :class:`skills_pipe.training.backends.base.Backend`.

    Every rank passes the same fp32 model: with its weights in memory, or without and with ``weights``, from which each
    rank then reads its shard. With several ranks each layer and the rest are sharded by FSDP2; one
    process keeps the plain module and, for half precision, lends it copies of its weights, which measured 6 to 10 %
    faster than FSDP2 over one rank and gives the same bits. Only with weights in the host memory of a device FSDP2
    shards over one rank too, for which there must be a process group.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        settings: FsdpSettings,
        world: World,
        weights: PretrainedWeights | None = None,
    ) -> None:
        built = build(model, settings, world, weights)
        self._settings = settings
        self._world = world
        self._model = model
        self._layout = built.layout
        self._loss = built.loss
        self._copies = built.copies
        self._load = built.load
        self._trainee = built.trainee
        self._kernels = built.kernels

    @property
    def trainee(self) -> Trainee:
        """The live objects that a checkpoint saves and restores."""
        return self._trainee

    @property
    def kernels(self) -> Mapping[str, str]:
        """What computes attention and the loss, by its name."""
        return self._kernels.names

    def train_step(
        self, microbatches: Sequence[Microbatch], *, targets: float, judge: Judge = require_finite
    ) -> StepResult:
        """One optimizer step on a global batch whose supervised tokens weigh ``targets``."""
        optimizer, scheduler = self._trainee.optimizer, self._trainee.scheduler
        lr = rate_of(optimizer.param_groups[0])
        if targets == 0:
            return StepResult(loss=math.nan, grad_norm=0.0, lr=lr, updated=False)
        loss = self._over_ranks(self._accumulate(microbatches, scale=1.0 / targets))
        metrics = load_metrics(self._choices(self._load)) if self._load is not None else {}
        norm = clip_gradients(self._model.parameters(), self._settings.max_grad_norm)
        try:
            against = judge(loss, norm)
            if against is None:
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                if self._trainee.average is not None:
                    self._trainee.average.update()
        finally:
            optimizer.zero_grad()
        return StepResult(
            loss=loss, grad_norm=norm, lr=lr, updated=against is None, passed_over=against, metrics=metrics
        )

    def evaluate(self, microbatches: Sequence[Microbatch]) -> float:
        """Summed cross entropy over the supervised tokens of all ranks."""
        self._model.eval()
        with torch.no_grad(), self._compute_weights():
            total = sum(float(self._forward(microbatch, scale=1.0)) for microbatch in microbatches)
        self._model.train()
        reshard(self._loss)
        return self._over_ranks(total)

    def generate(self, prompts: Sequence[Prompt], how: Generation) -> list[list[int]]:
        """The tokens that the model writes after each prompt; the prompts are shared out over the ranks.

        Raises:
            ConfigError: ranks share layers, sequences or experts; each then has too little to write by itself.
        """
        self._check_writes()
        mine = replace(how, rank=self._world.rank, ranks=self._world.size)
        with torch.no_grad(), self._compute_weights():
            written = self._loss.generate(prompts, mine)
        reshard(self._loss)
        everything = {index: ids for share in on_all(lambda: written) for index, ids in share.items()}
        return [everything[index] for index in range(len(prompts))]

    def _check_writes(self) -> None:
        layout = self._layout
        if max(layout.tensor, layout.context, layout.expert) > 1:
            raise ConfigError(
                f"the model cannot write: its ranks share layers, sequences or experts ({layout})",
                where="policy.tensor_model_parallel_size, policy.context_parallel_size, "
                "policy.expert_model_parallel_size",
                fix="set them to 1, or export the model and ask it by ns eval",
            )

    def _accumulate(self, microbatches: Sequence[Microbatch], *, scale: float) -> float:
        """Gradients of all microbatches of this rank; returns its part of the loss."""
        # Kept on the device until the end: reading a GPU's value in each microbatch would wait for it each time.
        total = torch.zeros((), dtype=torch.float64, device=self._world.device)
        if self._load is not None:
            self._load.reset()
        with self._compute_weights():
            for index, microbatch in enumerate(microbatches):
                if self._world.size > 1 and self._settings.defer_grad_sync:
                    self._loss.set_requires_gradient_sync(index == len(microbatches) - 1)
                loss = self._forward(microbatch, scale=scale, count=self._load is not None and not microbatch.dummy)
                loss.backward()
                total += loss.detach()
        return float(total)

    def _over_ranks(self, loss: float) -> float:
        """The sum of the losses of all documents; ranks that share each layer have the same, which counts once."""
        return self._world.sum(loss if self._first_of_same_tokens else 0.0)

    def _choices(self, load: ExpertLoad) -> torch.Tensor:
        """How often each expert was chosen for all tokens of the step: int64 ``[layers, experts]``, on each rank."""
        return self._world.total(load.counts * self._first_of_same_tokens)

    @property
    def _first_of_same_tokens(self) -> bool:
        """Whether this rank speaks for those that share each layer."""
        return self._world.rank % self._layout.tensor == 0

    def _forward(self, microbatch: Microbatch, *, scale: float, count: bool = False) -> torch.Tensor:
        documents = Documents.of(microbatch.cu_seqlens)
        row = microbatch.to(self._world.device)
        documents = Documents(lengths=documents.lengths, cu_seqlens=row.cu_seqlens)
        return self._loss(
            row.input_ids,
            row.position_ids,
            row.labels,
            documents,
            scale=scale,
            weights=row.weights,
            counted=torch.ones_like(row.input_ids) if count else None,
        )

    def _compute_weights(self) -> AbstractContextManager[None]:
        return self._copies.lent() if self._copies is not None else nullcontext()
