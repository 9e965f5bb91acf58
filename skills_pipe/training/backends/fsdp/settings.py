"""How the fsdp backend trains, as the configuration asks for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.kernels import AttentionChoice, LossChoice
from skills_pipe.training.config.adapters import AdapterSpec, adapter_spec
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.config.quantization import QuantizationSpec, quantization_spec
from skills_pipe.training.config.schema.policy import ObjectConfig, PolicyConfig, SchedulerConfig
from skills_pipe.training.models.recompute import Granularity

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
        attention_kernel: what may compute attention on a GPU.
        loss_kernel: what may compute the loss.
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
    attention_kernel: AttentionChoice = "auto"
    loss_kernel: LossChoice = "auto"
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
            attention_kernel=policy.dtensor_cfg.attention_kernel,
            loss_kernel=policy.dtensor_cfg.loss_kernel,
            cpu_offload=policy.dtensor_cfg.cpu_offload,
            layout=Layout.of(policy.dtensor_cfg, ranks=ranks),
            noise=policy.neftune_noise_alpha,
            compile=policy.dtensor_cfg.compile,
            adapters=adapter_spec(policy),
            quantization=quantization_spec(policy),
        )
