"""Checks of a training run that need its configuration: the same keys that the trainer will get, read the same way."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from skills_pipe.artifacts.rows import RowKeys
from skills_pipe.errors import ClusterConfigError, ConfigError
from skills_pipe.pipeline.checks.finding import Checked, Finding, error, warning
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime
from skills_pipe.pipeline.commands.sft_inputs import Keys, keys_of, read_keys
from skills_pipe.pipeline.options.overrides import key_of
from skills_pipe.pipeline.plan import Job

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft_options import SftOptions
    from skills_pipe.training.config import TrainingConfig
    from skills_pipe.training.config.estimate import ModelShape


_FLAGS = {
    "policy.model_name": "--hf_model",
    "policy.megatron_cfg.enabled": "--backend",
    "policy.dtensor_cfg.enabled": "--backend",
    "cluster.gpus_per_node": "--num_gpus",
    "cluster.num_nodes": "--num_nodes",
    "data.train_data_path": "--training_data",
    "data.val_data_path": "--validation_data",
    "logger.log_dir": "--log_dir",
    "logger.wandb.project": "--wandb_project",
}
"""Keys that the launcher sets, and the flags that they come from."""

_FIXED = {
    "checkpointing.checkpoint_dir": "--output_dir",
    "cluster.gpus_per_node": "--num_gpus",
    "cluster.num_nodes": "--num_nodes",
}
"""Keys that only the flags may set: later stages, or the job itself, go by the flag."""


def check_training(request: Request[SftOptions]) -> list[Finding]:
    """What is wrong with the trainer's keys, and with the steps that are to be converted or averaged."""
    trainer = _trainer(request)
    if trainer is None:
        return []
    keys = keys_of(trainer.command)
    config, problems = read_keys(keys)
    if config is None:
        return [_finding(problem, request.extras) for problem in problems]
    return [
        *map(warning, _of_the_other_backend(config, keys)),
        *_check_fixed(request.extras),
        *_check_steps(request.options, config),
        *_check_wandb(config, request.cluster),
        *_check_programs(config, trainer, request.cluster),
    ]


def check_rows(request: Request[SftOptions]) -> Checked:
    """What is wrong with the first rows of the data."""
    from skills_pipe.pipeline.checks.questions import HEAD_BYTES
    from skills_pipe.pipeline.checks.rows import faults_in
    from skills_pipe.training.config.dataset_names import has_plain_rows

    subject = "rows of the data"
    config = _config(request)
    if config is None:
        return Checked(subject=subject, left_out=_NO_CONFIG)
    skips = config.data.on_bad_row == "skip"
    tell, fix = (warning, _SKIPPED_FIX) if skips else (error, _ROWS_FIX)
    findings, read = [], []
    for dataset in (*config.data.train, *config.data.validation):
        head = request.head(dataset.data_path) if dataset.data_path else None
        if head is None or dataset.data_path is None or not has_plain_rows(dataset.dataset_name, dataset.data_path):
            continue
        read.append(dataset.data_path)
        keys = RowKeys(
            input_key=dataset.input_key,
            output_key=dataset.output_key,
            chat_key=dataset.chat_key,
            tool_key=dataset.tool_key,
        )
        faults = faults_in(head, keys, whole=len(head) < HEAD_BYTES)
        more = f" (and {len(faults) - 1} more of the first rows)" if len(faults) > 1 else ""
        findings += [tell(f"{dataset.data_path}, {fault}{more}", fix=fix) for fault in faults[:1]]
    return Checked(subject=subject, findings=tuple(findings), left_out=None if read else "no file could be read here")


def check_base_model(request: Request[SftOptions]) -> Checked:
    """Whether the base model can be read, and has the layers that are to get adapters."""
    from skills_pipe.pipeline.checks.model import check_adapted_layers, check_folder
    from skills_pipe.training.config.adapters import adapter_spec

    subject = "base model"
    config = _config(request)
    if config is None:
        return Checked(subject=subject, left_out=_NO_CONFIG)
    if request.options.run_after:
        return Checked(subject=subject, left_out="a run before may make it, or make it anew")
    name, shape = config.policy.model_name, _shape(request, config)
    folder = request.look(name)
    if shape is None and not (folder and folder.exists):
        return Checked(subject=subject, left_out="it cannot be looked at")
    findings = [*(check_folder(request, name, folder) if folder else ())]
    if shape is not None:
        findings += check_adapted_layers(config.policy, shape)
    elif not findings and adapter_spec(config.policy) is not None:
        return Checked(subject=subject, left_out="its layers are not known here")
    return Checked(subject=subject, findings=tuple(findings))


def check_size(request: Request[SftOptions]) -> Checked:
    """Whether parallel sizes, batch and model fit each other."""
    from skills_pipe.pipeline.checks.sizes import check_sizes

    subject = "parallel sizes"
    config, trainer = _config(request), _trainer(request)
    if config is None or trainer is None:
        return Checked(subject=subject, left_out=_NO_CONFIG)
    shape, model = _shape(request, config), _model(request, config)
    return Checked(
        subject=subject, findings=tuple(check_sizes(config.policy, shape, ranks=_ranks(trainer), model=model))
    )


def check_fit(request: Request[SftOptions]) -> Checked:
    """Whether training fits into the memory of its GPUs."""
    from skills_pipe.pipeline.checks.sizes import check_memory

    subject = "memory of the GPUs"
    config, trainer = _config(request), _trainer(request)
    if config is None or trainer is None:
        return Checked(subject=subject, left_out=_NO_CONFIG)
    if not trainer.resources.num_gpus:
        return Checked(subject=subject, left_out="no GPU is asked for")
    shape = _shape(request, config)
    averaged = config.sft.ema_decay is not None
    return check_memory(config.policy, shape, ranks=_ranks(trainer), gpu=request.gpu(trainer), averaged=averaged)


_FLASH_ATTENTION = ("flash_attn", "flash_attn_interface")
"""Packages of FlashAttention 2 and 3."""

_NO_CONFIG = "nothing trains, or its keys are wrong"
_ROWS_FIX = "correct the data, name its keys, or set ++data.on_bad_row=skip"
_SKIPPED_FIX = "correct the data, or name its keys; such rows are left out (data.on_bad_row=skip)"


def _trainer(request: Request[SftOptions]) -> Job | None:
    return next((job for job in request.plan.jobs if job.segment), None)


def _config(request: Request[SftOptions]) -> TrainingConfig | None:
    """The configuration of the trainer; None where there is none, or a wrong one."""
    trainer = _trainer(request)
    return read_keys(keys_of(trainer.command))[0] if trainer else None


def _ranks(trainer: Job) -> int:
    return trainer.resources.num_nodes * max(1, trainer.resources.num_gpus)


def _shape(request: Request[SftOptions], config: TrainingConfig) -> ModelShape | None:
    from skills_pipe.training.config.estimate import ModelShape

    model = _model(request, config)
    return ModelShape.of(model) if model is not None else None


def _model(request: Request[SftOptions], config: TrainingConfig) -> dict[str, Any] | None:
    """The model's ``config.json`` with what replaces its values; None where it cannot be read here."""
    found = request.model_config(config.policy.model_name)
    return {**found, **config.policy.hf_config_overrides} if found else None


def _check_fixed(extras: tuple[str, ...]) -> list[Finding]:
    typed = [key_of(word) for word in extras]
    return [
        error(f"{key} follows from {flag}", where=f"++{key}", fix=f"give {flag} instead")
        for key, flag in _FIXED.items()
        if key in typed
    ]


def _of_the_other_backend(config: TrainingConfig, keys: Keys) -> list[str]:
    from skills_pipe.training.config import typed_for_megatron

    return typed_for_megatron(config, keys)


def _check_wandb(config: TrainingConfig, cluster: ClusterConfig) -> list[Finding]:
    """A trainer that cannot log in to Weights & Biases stops at once, after its wait in the queue."""
    if not config.logger.wandb_enabled or cluster.is_local:
        return []
    try:
        environment = cluster.environment()
    except ClusterConfigError:
        return []  # told by the checks of the cluster
    if environment.keys() & {"WANDB_API_KEY", "WANDB_MODE"}:
        return []
    fix = "export it, or add --disable_wandb"
    if config.logger.wandb.optional:
        return [warning("nothing is sent to Weights & Biases: WANDB_API_KEY is not set", fix=fix)]
    what = "jobs log to Weights & Biases, and WANDB_API_KEY is not set"
    # Without containers a key in the home folder may do.
    in_containers = cluster.container_runtime is not ContainerRuntime.NONE
    return [error(what, fix=fix) if in_containers else warning(what, fix=fix)]


def _check_programs(config: TrainingConfig, trainer: Job, cluster: ClusterConfig) -> list[Finding]:
    """What the trainer needs and this machine, where it will run, does not have; of a cluster nothing is known here."""
    from skills_pipe.training.config.quantization import check_installed
    from skills_pipe.training.config.rules.kernels import ATTENTION_KEY
    from skills_pipe.training.config.rules.unsupported import COMPILING_OPTIMIZERS

    if not cluster.is_local:
        return []
    policy, findings = config.policy, []
    try:
        check_installed(policy)
    except ConfigError as problem:
        findings.append(error(problem.what, where=problem.where, fix=problem.fix))
    # As torch looks for it. What sets up the job may bring another one: no more than a warning.
    compiler = os.environ.get("CXX", "g++")
    optimizer = policy.optimizer.name if policy.optimizer is not None else ""
    compiles = {
        "policy.dtensor_cfg.compile": policy.dtensor_cfg.compile,
        "policy.optimizer.name": optimizer.startswith(COMPILING_OPTIMIZERS),
    }
    if any(compiles.values()) and not trainer.resources.num_gpus and shutil.which(compiler) is None:
        where = next(key for key, does in compiles.items() if does)
        what = f"torch compiles, and there is no {compiler} on this machine"
        findings.append(warning(what, where=where, fix="install a C++ compiler, or do without"))
    if policy.dtensor_cfg.loss_kernel == "liger" and _is_missing("liger_kernel"):
        key = "policy.dtensor_cfg.loss_kernel"
        fix = f"pip install liger-kernel, for GPUs, or set {key}=auto"
        findings.append(error("Liger is not installed on this machine", where=key, fix=fix))
    if policy.dtensor_cfg.attention_kernel == "flash_attn" and all(map(_is_missing, _FLASH_ATTENTION)):
        fix = f"pip install flash-attn, for GPUs, or set {ATTENTION_KEY}=auto"
        findings.append(error("flash-attn is not installed on this machine", where=ATTENTION_KEY, fix=fix))
    package = optimizer.partition(".")[0] or "torch"
    if _is_missing(package):
        fix = f"pip install {package}, or choose an optimizer of torch.optim"
        findings.append(error(f"{package} is not installed on this machine", where="policy.optimizer.name", fix=fix))
    return findings


def _is_missing(package: str) -> bool:
    try:
        return find_spec(package) is None
    except ValueError:  # marked as one that is not to be found
        return True


def _finding(problem: ConfigError, extras: tuple[str, ...]) -> Finding:
    """A problem of the configuration; one with a key that the launcher has set names the flag."""
    typed = {key_of(word) for word in extras}
    where = problem.where
    for key, flag in _FLAGS.items():
        if key not in typed and f"++{key}=" in (where or ""):
            where = flag
    return error(problem.what, where=where, fix=problem.fix)


def _check_steps(options: SftOptions, config: TrainingConfig) -> list[Finding]:
    where = "--average_steps" if options.average_steps else "--conversion_step"
    steps = options.needed_steps
    period, last = config.checkpointing.save_period, config.sft.max_num_steps
    findings = []
    for step in steps:
        if last is not None and step > last:
            fix = "name earlier steps, or train longer"
            findings.append(error(f"step {step} is never reached: sft.max_num_steps is {last}", where=where, fix=fix))
        elif (not period or step % period) and step != last:
            rule = f"every {'step' if period == 1 else f'{period} steps'}" if period else "at the end only"
            what = f"step {step} is not saved: checkpoints are saved {rule} (checkpointing.save_period)"
            # Without a number of steps the last one is not known here; it is always saved.
            only_maybe = last is None
            findings.append(
                warning(f"{what}, and at the end" if period else what, where=where)
                if only_maybe
                else error(what, where=where, fix=_period_advice(period))
            )
    return findings + _check_kept(steps, config, where)


def _period_advice(period: int) -> str:
    setting = "set ++checkpointing.save_period"
    return f"name multiples of {period}, or {setting}" if period else setting


def _check_kept(steps: tuple[int, ...], config: TrainingConfig, where: str) -> list[Finding]:
    """Old checkpoints are deleted as training goes on; those that are needed are kept unless the user's keys differ."""
    settings = config.checkpointing
    missing = [str(step) for step in steps if step not in settings.keep_steps]
    if not missing or settings.keep_top_k is None:
        return []
    what = f"step {', '.join(missing)} may be deleted before it is needed: checkpointing.keep_steps does not name it"
    return [warning(what, where=where, fix="leave ++checkpointing.keep_steps out, or name it there")]
