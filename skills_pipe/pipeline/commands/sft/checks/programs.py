"""What the trainer needs of the machine that it runs on."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from skills_pipe.errors import ConfigError
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.checks.signature import is_installed
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.plan import Job

if TYPE_CHECKING:
    from skills_pipe.training.config import TrainingConfig

_FLASH_ATTENTION = ("flash_attn", "flash_attn_interface")
"""Packages of FlashAttention 2 and 3."""


def check_programs(config: TrainingConfig, trainer: Job, cluster: ClusterConfig) -> list[Finding]:
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
    if policy.dtensor_cfg.loss_kernel == "liger" and not is_installed("liger_kernel"):
        key = "policy.dtensor_cfg.loss_kernel"
        fix = f"pip install liger-kernel, for GPUs, or set {key}=auto"
        findings.append(error("Liger is not installed on this machine", where=key, fix=fix))
    if policy.dtensor_cfg.attention_kernel == "flash_attn" and not any(map(is_installed, _FLASH_ATTENTION)):
        fix = f"pip install flash-attn, for GPUs, or set {ATTENTION_KEY}=auto"
        findings.append(error("flash-attn is not installed on this machine", where=ATTENTION_KEY, fix=fix))
    package = optimizer.partition(".")[0] or "torch"
    if not is_installed(package, folder=cluster.working_dir):
        fix = f"pip install {package}, or choose an optimizer of torch.optim"
        findings.append(error(f"{package} is not installed on this machine", where="policy.optimizer.name", fix=fix))
    return findings
