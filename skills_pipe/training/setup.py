"""From a configuration to everything that the loop needs: tokenizer, data, model, backend, checkpoints, logs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skills_pipe.training.answers import Answers
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.checkpoint import rng
from skills_pipe.training.checkpoint.adapter import AdapterRecord, BaseModel
from skills_pipe.training.checkpoint.fingerprint import model_fingerprint
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.checkpoint.ranks import on_all
from skills_pipe.training.checkpoint.retention import Retention
from skills_pipe.training.checkpoint.state import RunDescription
from skills_pipe.training.config import TrainingConfig, to_tree, to_yaml
from skills_pipe.training.config.adapters import adapter_spec
from skills_pipe.training.config.quantization import check_installed, quantization_spec
from skills_pipe.training.config.rules.unsupported import COMPILING_OPTIMIZERS
from skills_pipe.training.config.schedule import seconds, total_steps
from skills_pipe.training.data.from_config import TrainingData, batch_sampler, batch_settings, load_data
from skills_pipe.training.data.template import PASSTHROUGH
from skills_pipe.training.data.tokenizer import load_tokenizer
from skills_pipe.training.distributed import World
from skills_pipe.training.models.compiled import require_compiler
from skills_pipe.training.models.load import open_model
from skills_pipe.training.models.lora import adapted_modules, linear_modules
from skills_pipe.training.models.positions import check_positions
from skills_pipe.training.models.pretrained.weights import PretrainedWeights
from skills_pipe.training.models.spec import ModelSpec
from skills_pipe.training.monitoring.metrics import MetricsLogger
from skills_pipe.training.monitoring.nodes import NodeMonitor
from skills_pipe.training.monitoring.profiler import StepProfiler
from skills_pipe.training.run import Run
from skills_pipe.training.signals import SignalListener, StopRequest, StopSettings
from skills_pipe.training.validation import Validation

T = TypeVar("T")

_STOP_SAMPLE = 1000
"""Documents looked at for the tokens that answers end with."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is read from disk or the hub, the same on every rank.

    Attributes:
        tokenizer, data: of the training.
        model: with its weights in memory, or without memory.
        weights: where the weights of a model without memory lie.
    """

    tokenizer: PreTrainedTokenizerBase
    data: TrainingData
    model: PreTrainedModel
    weights: PretrainedWeights | None = None

    @classmethod
    def load(cls, config: TrainingConfig) -> Parts:
        """Read tokenizer, data and model, in this order: cheap mistakes show first."""
        policy = config.policy
        check_installed(policy)
        tokenizer = load_tokenizer(policy.tokenizer.name or policy.model_name)
        data = load_data(config, tokenizer)
        model, weights = open_model(ModelSpec(name=policy.model_name, overrides=policy.hf_config_overrides))
        return replace(cls.of(tokenizer, data, model), weights=weights)

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, data: TrainingData, model: PreTrainedModel) -> Parts:
        """The parts of a run, once they are known to fit."""
        if data.template.text != PASSTHROUGH:
            # What is exported speaks as it was trained. Rows that hold their template already were made with the
            # tokenizer's own, which then stays.
            tokenizer.chat_template = data.template.for_tokenizer()
        longest = [int(one.lengths.max()) for one in (data.train, *data.validation.values()) if len(one.lengths)]
        check_positions(model.config, longest=max(longest, default=0))
        return cls(tokenizer=tokenizer, data=data, model=model)


def load_parts(config: TrainingConfig, world: World) -> Parts:
    """:meth:`Parts.load` on every rank; a failure on one of them is raised on all.

    Raises:
        UserError: what is read is wrong, or something is to be compiled and cannot be here.
    """
    _check_compiler(config, world)
    return _together(lambda: Parts.load(config))


def build_run(config: TrainingConfig, parts: Parts, world: World, listener: SignalListener) -> Run:
    """Spread the model over the ranks, and go on from the latest checkpoint where there is one.

    Raises:
        UserError: the configuration and the checkpoint do not fit, or a class it names cannot be used.
    """
    return with_metrics(with_checkpoints(assemble(config, parts, world, listener), parts))


def assemble(config: TrainingConfig, parts: Parts, world: World, listener: SignalListener) -> Run:
    """Spread the model over the ranks; nothing is saved, resumed or logged by what this gives.

    Raises:
        UserError: a class that the configuration names cannot be used.
    """
    _check_compiler(config, world)
    batches = batch_settings(config, parts.data.train)
    steps = total_steps(config, batches.units(parts.data.train))
    # Each rank its own dropout.
    rng.reseed(config.sft.seed, rank=world.rank)
    settings = _backend_settings(config, steps, world)
    if settings.layout is not None:
        world = replace(world, same_rows=settings.layout.same_rows)
    return Run(
        config=config,
        world=world,
        backend=FsdpBackend(parts.model, settings, world, parts.weights),
        dataset=parts.data.train,
        sampler=batch_sampler(config, parts.data.train, batches),
        batches=batches,
        total_steps=steps,
        stop=stop_request(config, listener, world),
        validation=Validation.of(config, parts.data.validation) if parts.data.validation else None,
        answers=Answers.of(config, parts.data.validation, parts.tokenizer, parts.model),
        profiler=StepProfiler.of(config.logger, world),
    )


def with_checkpoints(run: Run, parts: Parts) -> Run:
    """The same run with its folder of checkpoints, in the state of the latest one there; unchanged where it has none.

    Raises:
        CheckpointError: the latest one is damaged or of another run, or another process uses the folder.
    """
    if not run.config.checkpointing.enabled:
        return run
    checkpoints = _checkpoint_manager(run, parts)
    checkpoints.start()
    resumed = checkpoints.resume(run.backend.trainee)
    return replace(run, checkpoints=checkpoints, resumed=resumed)


def with_metrics(run: Run) -> Run:
    """The same run with its log, which goes on where the run does."""
    metrics = _together(lambda: _metrics(run) if run.world.first else None)
    return replace(run, metrics=metrics, nodes=NodeMonitor.of(run.config.logger, run.world))


def stop_request(config: TrainingConfig, listener: SignalListener, world: World) -> StopRequest:
    """What ends this job early."""
    limit = config.checkpointing.checkpoint_must_save_by
    settings = StopSettings.from_environment(
        must_save_by=seconds(limit) if limit is not None else None, steps=config.checkpointing.stop_after_steps
    )
    return StopRequest(settings, listener, world)


def _check_compiler(config: TrainingConfig, world: World) -> None:
    """Compiled code is asked for by a key, or comes with an optimizer of torchao."""
    policy, device = config.policy, world.device.type
    if policy.dtensor_cfg.compile:
        _together(lambda: require_compiler(device, where="policy.dtensor_cfg.compile", instead="set it to false"))
    elif policy.optimizer is not None and policy.optimizer.name.startswith(COMPILING_OPTIMIZERS):
        choose = "choose another optimizer: those of torchao compile their steps"
        _together(lambda: require_compiler(device, where="policy.optimizer.name", instead=choose))


def _backend_settings(config: TrainingConfig, steps: int, world: World) -> FsdpSettings:
    settings = FsdpSettings.of(config.policy, ranks=world.size)
    return replace(settings, average_decay=config.sft.ema_decay, total_steps=steps, seed=config.sft.seed)


def _checkpoint_manager(run: Run, parts: Parts) -> CheckpointManager:
    config, world = run.config, run.world
    settings = config.checkpointing
    description = RunDescription(
        config_yaml=to_yaml(config),
        model_fingerprint=model_fingerprint(parts.model.config, config.policy.model_name),
        data_fingerprint=run.data_fingerprint,
        validation_fingerprint=run.validation.fingerprint if run.validation is not None else None,
        seed=config.sft.seed,
        precision=config.policy.precision,
        tokenizer=parts.tokenizer,
        stop_token_ids=_stop_tokens(parts),
        adapter=_adapter_record(config, parts.model),
        save_optimizer=settings.save_optimizer,
        kernels=run.backend.kernels,
        total_steps=run.total_steps,
    )
    retention = Retention(
        metric_name=settings.metric_name,
        higher_is_better=settings.higher_is_better,
        keep_top_k=settings.keep_top_k,
        keep_latest_k=settings.ft_keep_latest_k,
        # With 0 the last step alone competes: what is saved on the way is for recovery.
        save_period=settings.save_period or run.total_steps,
        keep_steps=settings.keep_steps,
    )
    return CheckpointManager(
        Path(settings.checkpoint_dir),
        run=description,
        retention=retention,
        accept_changes=settings.on_change == "continue",
        in_background=_saves_in_background(config, world),
    )


def _saves_in_background(config: TrainingConfig, world: World) -> bool:
    """Only with saves on the way: the last one is waited for anyway, and needs no copy in memory.

    Unless they are asked for, not where the host's memory holds all that is saved already, and would have to twice.
    """
    settings, offloaded = config.checkpointing, config.policy.dtensor_cfg.cpu_offload
    wanted = settings.is_async if settings.is_async is not None else world.device.type == "cuda" and not offloaded
    return wanted and bool(settings.save_period or settings.ft_save_period)


def _adapter_record(config: TrainingConfig, model: PreTrainedModel) -> AdapterRecord | None:
    spec = adapter_spec(config.policy)
    if spec is None:
        return None
    base = BaseModel(name=config.policy.model_name, commit=getattr(model.config, "_commit_hash", None))
    kept = quantization_spec(config.policy)
    return AdapterRecord.of(
        spec, adapted_modules(model), linear_modules(model), base=base, quantized=str(kept) if kept else None
    )


def _stop_tokens(parts: Parts) -> tuple[int, ...]:
    """The special tokens that end the training documents' answers, the most frequent first."""
    special = {index for index, token in parts.tokenizer.added_tokens_decoder.items() if token.special}
    counts: dict[int, int] = {}
    for index in range(min(_STOP_SAMPLE, len(parts.data.train))):
        example = parts.data.train[index]
        trained = np.flatnonzero(example.loss_mask)
        last = int(example.input_ids[trained[-1]]) if len(trained) else -1
        if last in special:
            counts[last] = counts.get(last, 0) + 1
    return tuple(sorted(counts, key=lambda token: -counts[token]))


def _metrics(run: Run) -> MetricsLogger:
    return MetricsLogger(
        run.config.logger,
        total_steps=run.total_steps,
        resumed_step=run.resumed.info.total_steps if run.resumed is not None else 0,
        run_config=to_tree(run.config),
    )


def _together(action: Callable[[], T]) -> T:
    """Run ``action`` on every rank; when it fails on one, all of them raise."""
    results: list[T] = []
    on_all(lambda: results.append(action()))
    return results[0]
