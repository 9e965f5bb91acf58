"""NeMo's configuration of a training (``trainer``, ``exp_manager``, ``model``) becomes that of the engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from omegaconf import DictConfig, OmegaConf

from skills_pipe.errors import ConfigError
from skills_pipe.training.api.trlx.configs import TRLConfig
from skills_pipe.training.config.yaml_text import load_yaml

_PRECISIONS: Final = {"bf16": "bfloat16", "bf16-mixed": "bfloat16", "16": "float16", "32": "float32"}
_ADAM: Final = ("adam", "adamw", "fused_adam", "distributed_fused_adam", "megatron_fused_adam")

Tree = Mapping[str, Any]


def read_megatron_cfg(given: str | Path | Tree | DictConfig | None) -> Tree:
    """The sections of a file, or those that a program gives.

    Raises:
        ConfigError: there are none, or the file cannot be read.
    """
    if given is None:
        raise ConfigError(
            "megatron_cfg is missing", where="train.trainer_kwargs", fix="give a YAML file or its sections"
        )
    if isinstance(given, DictConfig):
        return cast("Tree", OmegaConf.to_container(given, resolve=False))
    if isinstance(given, Mapping):
        return given
    try:
        tree = load_yaml(Path(given).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {given}: {error.strerror}", where="megatron_cfg", fix="check the path"
        ) from error
    if not isinstance(tree, Mapping) or not {"trainer", "model"} <= tree.keys():
        raise ConfigError(f"{given} has no sections trainer and model", where="megatron_cfg")
    return tree


def engine_sections(config: TRLConfig, megatron: Tree, model_name: str) -> dict[str, Any]:
    """The same training in the layout of ``docs/configuration.md``.

    Raises:
        ConfigError: something that would change the result cannot be honoured.
    """
    trainer, model = megatron["trainer"], megatron["model"]
    manager = megatron.get("exp_manager") or {}
    folder = manager.get("explicit_log_dir") or manager.get("exp_dir") or config.train.logging_dir or "logs"
    steps = int(_needed(trainer, "max_steps", "trainer"))
    return {
        "sft": {"max_num_steps": steps, "max_num_epochs": 1, "seed": int(model.get("seed") or 1000), "val_period": 0},
        "policy": {
            "model_name": model_name,
            "tokenizer": {"name": config.tokenizer.tokenizer_path, "chat_template": None},
            "train_global_batch_size": _needed(model, "global_batch_size", "model"),
            "train_micro_batch_size": 1,
            "max_total_sequence_length": _needed(model, "encoder_seq_length", "model"),
            "precision": _precision(trainer.get("precision", model.get("precision", "bf16"))),
            "max_grad_norm": trainer.get("gradient_clip_val"),
            "tensor_model_parallel_size": model.get("tensor_model_parallel_size", 1),
            "pipeline_model_parallel_size": model.get("pipeline_model_parallel_size", 1),
            **_optimizer(config, model.get("optim") or {}, steps),
        },
        # The samples come from the program, in their order of training.
        "data": {"train_data_path": "samples", "dataset_name": "text", "shuffle": False},
        "checkpointing": {
            "enabled": bool(manager.get("create_checkpoint_callback", False)),
            "checkpoint_dir": str(Path(folder) / "checkpoints"),
        },
        "logger": {
            "log_dir": str(folder),
            "tensorboard_enabled": bool(manager.get("create_tensorboard_logger", False)),
            "wandb_enabled": bool(manager.get("create_wandb_logger", False)),
        },
    }


def _optimizer(config: TRLConfig, optim: Tree, steps: int) -> dict[str, Any]:
    """Optimizer and schedule: NeMo's where it has them, else trlX's."""
    name = str(optim.get("name", config.optimizer.name)).lower()
    if name not in _ADAM:
        raise ConfigError(f"the optimizer {name!r} is not supported", where="model.optim.name", fix="use adamw")
    given = {**(optim or config.optimizer.kwargs)}
    kwargs = {key: given[key] for key in ("lr", "betas", "eps", "weight_decay") if key in given}
    if "betas" in kwargs:
        kwargs["betas"] = list(kwargs["betas"])
    return {"optimizer": {"name": "torch.optim.AdamW", "kwargs": kwargs}, "scheduler": _schedule(optim, steps)}


def _schedule(optim: Tree, steps: int) -> Any:
    """NeMo's CosineAnnealing: a linear rise, then half a cosine down to ``min_lr``, or a constant rate."""
    sched = optim.get("sched")
    if not sched:
        return None
    where = "model.optim.sched"
    if sched.get("name") != "CosineAnnealing":
        raise ConfigError(
            f"the schedule {sched.get('name')!r} is not supported", where=where, fix="use CosineAnnealing"
        )
    warmup, constant = int(sched.get("warmup_steps") or 0), int(sched.get("constant_steps") or 0)
    if 0 < constant < steps - warmup:
        raise ConfigError(
            f"{constant} constant steps out of {steps} are not supported", where=where, fix="set 0, or at least all"
        )
    parts: list[Any] = []
    if warmup > 1:
        kwargs = {"start_factor": 1 / warmup, "total_iters": warmup - 1}
        parts.append({"name": "torch.optim.lr_scheduler.LinearLR", "kwargs": kwargs})
    if not constant:
        kwargs = {"T_max": max(1, steps - warmup), "eta_min": sched.get("min_lr", 0.0)}
        parts.append({"name": "torch.optim.lr_scheduler.CosineAnnealingLR", "kwargs": kwargs})
    if len(parts) == 2:
        return [*parts, {"milestones": [warmup]}]
    return parts[0] if parts else None


def _precision(value: Any) -> str:
    if str(value) not in _PRECISIONS:
        raise ConfigError(f"the precision {value!r} is unknown", where="trainer.precision", fix="use bf16 or 32")
    return _PRECISIONS[str(value)]


def _needed(section: Tree, name: str, place: str) -> Any:
    if section.get(name) is None:
        raise ConfigError(f"megatron_cfg lacks {place}.{name}", where="megatron_cfg", fix="set it")
    return section[name]
