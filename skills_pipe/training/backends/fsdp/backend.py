"""The fsdp backend: torch's FSDP2 over several ranks, plain torch in one process, with the same arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.base import Judge, StepResult, require_finite
from skills_pipe.training.backends.fsdp.clip import clip_gradients
from skills_pipe.training.backends.fsdp.expert_parallel.dispatch import ExpertGroup
from skills_pipe.training.backends.fsdp.expert_parallel.layer import EXPERTS, share_experts
from skills_pipe.training.backends.fsdp.mesh import Mesh
from skills_pipe.training.backends.fsdp.precision import ComputeCopies
from skills_pipe.training.backends.fsdp.shard import reshard, shard
from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup
from skills_pipe.training.backends.fsdp.tensor_parallel.plan import share_layers
from skills_pipe.training.checkpoint.ranks import on_all
from skills_pipe.training.checkpoint.state import Trainee
from skills_pipe.training.config.adapters import AdapterSpec, adapter_spec
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.config.parallel_rules import unshareable
from skills_pipe.training.config.quantization import QUANTIZATION_KEY, QuantizationSpec, quantization_spec
from skills_pipe.training.config.quantization_rules import unquantizable
from skills_pipe.training.config.schema.policy import ObjectConfig, PolicyConfig, SchedulerConfig
from skills_pipe.training.data.batches import Microbatch
from skills_pipe.training.distributed import World
from skills_pipe.training.ema import WeightAverage
from skills_pipe.training.models import liger
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.compiled import compile_layers
from skills_pipe.training.models.context import ContextGroup
from skills_pipe.training.models.generate import Generation, Prompt
from skills_pipe.training.models.lora import base_name, freeze_but_adapters, initialise
from skills_pipe.training.models.loss import Kernel, SupervisedLoss
from skills_pipe.training.models.pretrained.empty import materialise
from skills_pipe.training.models.pretrained.weights import PretrainedWeights
from skills_pipe.training.models.quantized import fill_quantized, quantize_layers
from skills_pipe.training.models.recompute import Granularity, recompute_layers
from skills_pipe.training.optim import build_optimizer, build_scheduler, outer_matrices

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class FsdpSettings:
    """How the backend trains.

    Attributes:
        optimizer, scheduler: import paths and arguments.
        dtype: of the forward and backward pass; weights, gradients and optimizer state are fp32.
        max_grad_norm: None clips nothing.
        activation_checkpointing: compute activations again in the backward pass instead of keeping them.
        recompute_granularity: all of them, or only those that are quickly computed.
        defer_grad_sync: exchange gradients once per step, at the price of whole gradients in memory until then.
        loss_kernel: what computes the loss.
        cpu_offload: shards of weights, their gradients and the optimizer's states lie in host memory.
        layout: how the ranks share the work; None: the weights are sharded over all of them.
        noise: strength of NEFTune's noise on embeddings; None for none.
        average_decay: of the moving average of the weights; None keeps none.
        total_steps: of the training, for schedules that have to know it.
        compile: run the layers through torch.compile.
        adapters: what is trained instead of all weights; None: all weights.
        quantization: how the linear layers below them are kept; None: in ``dtype``.
        seed: of the first values of adapters.
    """

    optimizer: ObjectConfig
    scheduler: SchedulerConfig | None = None
    dtype: torch.dtype = torch.float32
    max_grad_norm: float | None = 1.0
    activation_checkpointing: bool = False
    recompute_granularity: Granularity = "full"
    defer_grad_sync: bool = True
    loss_kernel: Kernel = "chunked"
    cpu_offload: bool = False
    layout: Layout | None = None
    noise: float | None = None
    average_decay: float | None = None
    total_steps: int | None = None
    compile: bool = False
    adapters: AdapterSpec | None = None
    quantization: QuantizationSpec | None = None
    seed: int = 0

    @classmethod
    def of(cls, policy: PolicyConfig, *, ranks: int = 1) -> FsdpSettings:
        """The settings that the ``policy`` section of a configuration asks for, on so many ranks.

        Raises:
            ConfigError: a precision that is not supported, no optimizer, or sizes that do not divide the ranks.
        """
        if policy.precision not in _DTYPES:
            raise ConfigError(
                f"{policy.precision} needs loss scaling, which the fsdp backend does not have",
                where="policy.precision",
                fix="use bfloat16 or float32",
            )
        if policy.optimizer is None:
            raise ConfigError("no optimizer is given", where="policy.optimizer", fix="name one: torch.optim.AdamW")
        return cls(
            optimizer=policy.optimizer,
            scheduler=policy.scheduler,
            dtype=_DTYPES[policy.precision],
            max_grad_norm=policy.max_grad_norm,
            activation_checkpointing=policy.dtensor_cfg.activation_checkpointing,
            recompute_granularity=policy.dtensor_cfg.recompute_granularity,
            defer_grad_sync=policy.dtensor_cfg.defer_fsdp_grad_sync,
            loss_kernel=policy.dtensor_cfg.loss_kernel,
            cpu_offload=policy.dtensor_cfg.cpu_offload,
            layout=Layout.of(policy.dtensor_cfg, ranks=ranks),
            noise=policy.neftune_noise_alpha,
            compile=policy.dtensor_cfg.compile,
            adapters=adapter_spec(policy),
            quantization=quantization_spec(policy),
        )


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
        self._settings = settings
        self._world = world
        self._model = model
        self._layout = layout = settings.layout or Layout(shard=world.size)
        problems = unshareable(model.config.to_dict(), layout)
        if settings.quantization is not None:
            problems += unquantizable(model.config.to_dict())
        if problems:
            raise problems[0]
        if settings.loss_kernel == "liger":
            liger.require(world.device)
        model.train()
        if settings.activation_checkpointing:
            recompute_layers(model, settings.recompute_granularity)
        if settings.quantization is not None:
            if weights is None:
                raise _in_memory()
            quantize_layers(model, settings.quantization, settings.dtype)
        new_adapters = settings.adapters is not None and freeze_but_adapters(model, settings.adapters, settings.dtype)
        # What computes on the host has its weights there anyway.
        travels = settings.cpu_offload and world.device.type != "cpu"
        if travels and not dist.is_initialized():
            raise ConfigError(
                "weights that travel from host memory need a process group, and a trainer in this process has none",
                where="policy.dtensor_cfg.cpu_offload",
                fix="disable it, or train with python -m skills_pipe.training.sft or ns nemo_rl sft",
            )
        mesh = Mesh.of(layout, world.device.type) if world.size > 1 or travels else None
        self._loss = SupervisedLoss(
            model,
            noise=settings.noise,
            row_multiple=layout.row_multiple,
            context=ContextGroup(group=mesh.context.get_group()) if mesh is not None and layout.context > 1 else None,
            kernel=settings.loss_kernel,
        )
        self._copies: ComputeCopies | None = None
        if mesh is not None:
            # Before the weights are there: no process ever holds the whole of them.
            tensor = TensorGroup(mesh=mesh.tensor, sequence=layout.sequence_parallel) if layout.tensor > 1 else None
            if tensor is not None:
                share_layers(model, tensor)
            if mesh.experts.size() > 1 and model.config.model_type in EXPERTS:
                share_experts(model, ExpertGroup(mesh=mesh.experts, exchange=mesh.expert, tensor=tensor))
        if settings.compile:
            # The layers as they are by now, and before FSDP2 puts its hooks around them.
            compile_layers(model)
        if mesh is not None:
            shard(self._loss, mesh, settings.dtype, offload=settings.cpu_offload)
        if weights is not None:
            materialise(self._loss, world.device, storage=torch.device("cpu") if travels else None)
            weights.fill(model, base_name)
            fill_quantized(model, weights)
        if new_adapters and settings.adapters is not None:
            initialise(model, settings.adapters, seed=settings.seed)
        if mesh is None:
            model.to(world.device)
            if settings.dtype != torch.float32:
                self._copies = ComputeCopies(model, settings.dtype)
        optimizer = build_optimizer(model.parameters(), settings.optimizer, outer=outer_matrices(model))
        self._trainee = Trainee(
            model=model,
            optimizer=optimizer,
            scheduler=build_scheduler(optimizer, settings.scheduler, total_steps=settings.total_steps),
            average=WeightAverage(model, settings.average_decay) if settings.average_decay is not None else None,
        )

    @property
    def trainee(self) -> Trainee:
        """The live objects that a checkpoint saves and restores."""
        return self._trainee

    def train_step(
        self, microbatches: Sequence[Microbatch], *, targets: float, judge: Judge = require_finite
    ) -> StepResult:
        """One optimizer step on a global batch whose supervised tokens weigh ``targets``."""
        optimizer, scheduler = self._trainee.optimizer, self._trainee.scheduler
        lr = float(optimizer.param_groups[0]["lr"])
        if targets == 0:
            return StepResult(loss=math.nan, grad_norm=0.0, lr=lr, updated=False)
        loss = self._over_ranks(self._accumulate(microbatches, scale=1.0 / targets))
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
        return StepResult(loss=loss, grad_norm=norm, lr=lr, updated=against is None, passed_over=against)

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
        with self._compute_weights():
            for index, microbatch in enumerate(microbatches):
                if self._world.size > 1 and self._settings.defer_grad_sync:
                    self._loss.set_requires_gradient_sync(index == len(microbatches) - 1)
                loss = self._forward(microbatch, scale=scale)
                loss.backward()
                total += loss.detach()
        return float(total)

    def _over_ranks(self, loss: float) -> float:
        """The sum of the losses of all documents; ranks that share each layer have the same, which counts once."""
        return self._world.sum(loss if self._world.rank % self._layout.tensor == 0 else 0.0)

    def _forward(self, microbatch: Microbatch, *, scale: float) -> torch.Tensor:
        documents = Documents.of(microbatch.cu_seqlens)
        row = microbatch.to(self._world.device)
        documents = Documents(lengths=documents.lengths, cu_seqlens=row.cu_seqlens)
        return self._loss(row.input_ids, row.position_ids, row.labels, documents, scale=scale, weights=row.weights)

    def _compute_weights(self) -> AbstractContextManager[None]:
        return self._copies.lent() if self._copies is not None else nullcontext()


def _in_memory() -> ConfigError:
    return ConfigError(
        "weights are kept in 4 bit as they are read from files, and this model has its own in memory already",
        where=f"{QUANTIZATION_KEY}.load_in_4bit",
        fix="train it with `ns nemo_rl sft`, or set it to false",
    )
