"""A model becomes what the backend trains: checked, changed, spread over the ranks, filled, and given an optimizer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.expert_parallel.dispatch import ExpertGroup
from skills_pipe.training.backends.fsdp.expert_parallel.layer import EXPERTS, share_experts
from skills_pipe.training.backends.fsdp.kernels import Kernels, choose_kernels
from skills_pipe.training.backends.fsdp.mesh import Mesh
from skills_pipe.training.backends.fsdp.precision import ComputeCopies
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.backends.fsdp.shard import shard
from skills_pipe.training.backends.fsdp.tensor_parallel.collectives import TensorGroup
from skills_pipe.training.backends.fsdp.tensor_parallel.plan import share_layers
from skills_pipe.training.checkpoint.state import Trainee
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.config.quantization import QUANTIZATION_KEY
from skills_pipe.training.config.rules.parallel import unshareable
from skills_pipe.training.config.rules.quantization import unquantizable
from skills_pipe.training.distributed import World
from skills_pipe.training.models.compiled import compile_layers
from skills_pipe.training.models.context import ContextGroup
from skills_pipe.training.models.expert_load import ExpertLoad
from skills_pipe.training.models.lora import base_name, freeze_but_adapters, initialise
from skills_pipe.training.models.loss import SupervisedLoss
from skills_pipe.training.models.pretrained.empty import materialise
from skills_pipe.training.models.pretrained.weights import PretrainedWeights
from skills_pipe.training.models.quantized import fill_quantized, quantize_layers
from skills_pipe.training.models.recompute import recompute_layers
from skills_pipe.training.optimizers.build import build_optimizer, build_scheduler, outer_matrices
from skills_pipe.training.optimizers.ema import WeightAverage
from skills_pipe.training.optimizers.rehearsal import rehearse


@dataclass(frozen=True, kw_only=True)
class Built:
    """What the backend trains with.

    Attributes:
        loss: the module that computes it, with the model inside.
        copies: of the weights in half precision, where one process lends them; None elsewhere.
        trainee: what a checkpoint saves and restores.
        layout: how the ranks share the work.
        load: of the experts of a mixture; None without any.
        kernels: what computes attention and the loss.
    """

    loss: SupervisedLoss
    copies: ComputeCopies | None
    trainee: Trainee
    layout: Layout
    load: ExpertLoad | None
    kernels: Kernels


def build(model: PreTrainedModel, settings: FsdpSettings, world: World, weights: PretrainedWeights | None) -> Built:
    """Spread ``model`` over the ranks of ``world``, ready for its first step; on every rank.

    The order matters: layers change and are shared while they have no weights yet, so that no process ever holds the
    whole of a model; they are compiled as they are by then, before FSDP2 puts its hooks around them; an optimizer
    wants the parameters as they stay.

    Args:
        model: with fp32 weights in memory, or without and with ``weights``; it is changed.
        settings: how to train.
        world: the ranks.
        weights: from which each rank reads its shard.

    Raises:
        ConfigError: a model, a layout or a device for which this is not proven, or a schedule that fails on the way.
    """
    layout = settings.layout or Layout(shard=world.size)
    # What computes on the host has its weights there anyway.
    travels = settings.cpu_offload and world.device.type != "cpu"
    _check(model, settings, layout, world, in_memory=weights is None, travels=travels)
    if settings.total_steps is not None:
        rehearse(settings.optimizer, settings.scheduler, total_steps=settings.total_steps)
    kernels = choose_kernels(
        model,
        attention=settings.attention_kernel,
        loss=settings.loss_kernel,
        dtype=settings.dtype,
        layout=layout,
        device=world.device,
    )
    model.train()
    new_adapters = _change_layers(model, settings)
    mesh = Mesh.of(layout, world.device.type) if world.size > 1 or travels else None
    loss = _loss_over(model, settings, layout, mesh, kernels)
    if mesh is not None:
        _share(model, layout, mesh)
    load = ExpertLoad.of(model, world.device)
    if settings.compile:
        compile_layers(model)
    if mesh is not None:
        shard(loss, mesh, settings.dtype, offload=settings.cpu_offload)
    if weights is not None:
        materialise(loss, world.device, storage=torch.device("cpu") if travels else None)
        weights.fill(model, base_name)
        fill_quantized(model, weights)
    if new_adapters and settings.adapters is not None:
        initialise(model, settings.adapters, seed=settings.seed)
    if mesh is None:
        model.to(world.device)
    lends = mesh is None and settings.dtype != torch.float32
    copies = ComputeCopies(model, settings.dtype) if lends else None
    return Built(loss=loss, copies=copies, trainee=_trainee(model, settings), layout=layout, load=load, kernels=kernels)


def _check(
    model: PreTrainedModel, settings: FsdpSettings, layout: Layout, world: World, *, in_memory: bool, travels: bool
) -> None:
    """Refuse what is not proven, before anything is changed."""
    problems = unshareable(model.config.to_dict(), layout)
    if settings.quantization is not None:
        problems += unquantizable(model.config.to_dict())
        if in_memory:
            problems.append(_in_memory())
    if travels and not dist.is_initialized():
        problems.append(_no_group())
    if problems:
        raise problems[0]


def _change_layers(model: PreTrainedModel, settings: FsdpSettings) -> bool:
    """What single layers compute and keep; whether there are adapters now that have no values yet."""
    if settings.activation_checkpointing:
        recompute_layers(model, settings.recompute_granularity)
    if settings.quantization is not None:
        quantize_layers(model, settings.quantization, settings.dtype)
    return settings.adapters is not None and freeze_but_adapters(model, settings.adapters, settings.dtype)


def _loss_over(
    model: PreTrainedModel, settings: FsdpSettings, layout: Layout, mesh: Mesh | None, kernels: Kernels
) -> SupervisedLoss:
    return SupervisedLoss(
        model,
        noise=settings.noise,
        row_multiple=layout.row_multiple,
        context=ContextGroup(group=mesh.context.get_group()) if mesh is not None and layout.context > 1 else None,
        loss_kernel=kernels.loss,
        attention_kernel=kernels.attention,
    )


def _share(model: PreTrainedModel, layout: Layout, mesh: Mesh) -> None:
    """Ranks that share layers or experts: each has a part of them from here on."""
    tensor = TensorGroup(mesh=mesh.tensor, sequence=layout.sequence_parallel) if layout.tensor > 1 else None
    if tensor is not None:
        share_layers(model, tensor)
    if mesh.experts.size() > 1 and model.config.model_type in EXPERTS:
        share_experts(model, ExpertGroup(mesh=mesh.experts, exchange=mesh.expert, tensor=tensor))


def _trainee(model: PreTrainedModel, settings: FsdpSettings) -> Trainee:
    optimizer = build_optimizer(model.parameters(), settings.optimizer, outer=outer_matrices(model))
    return Trainee(
        model=model,
        optimizer=optimizer,
        scheduler=build_scheduler(optimizer, settings.scheduler, total_steps=settings.total_steps),
        average=WeightAverage(model, settings.average_decay) if settings.average_decay is not None else None,
    )


def _in_memory() -> ConfigError:
    return ConfigError(
        "weights are kept in 4 bit as they are read from files, and this model has its own in memory already",
        where=f"{QUANTIZATION_KEY}.load_in_4bit",
        fix="train it with `ns nemo_rl sft`, or set it to false",
    )


def _no_group() -> ConfigError:
    return ConfigError(
        "weights that travel from host memory need a process group, and a trainer in this process has none",
        where="policy.dtensor_cfg.cpu_offload",
        fix="disable it, or train with python -m skills_pipe.training.sft or ns nemo_rl sft",
    )
