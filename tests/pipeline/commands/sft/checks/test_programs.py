"""Packages that the trainer needs and that are not there, told before the queue."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from tests.pipeline.commands.sft.checks.findings import HERE, texts, training_findings

pytestmark = pytest.mark.usefixtures("wandb_key")


def test_a_missing_package_is_told_where_the_trainer_runs_on_this_machine(monkeypatch):
    # The way in which python itself marks a module that is not to be found.
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    fsdp = "++policy.dtensor_cfg"
    extras = (f"{fsdp}.lora_cfg.enabled=true", f"{fsdp}.quantization.load_in_4bit=true")
    told = "weights in 4 bit need bitsandbytes, which is not installed"
    assert told in texts(training_findings(*extras, cluster=HERE))
    assert told not in texts(training_findings(*extras)), "of a cluster nothing is known here"
    assert told not in texts(training_findings(extras[0], cluster=HERE))
    monkeypatch.undo()
    assert told not in texts(training_findings(*extras, cluster=HERE))


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("torchao", "++policy.optimizer.name=torchao.optim.AdamW8bit"),
        ("liger_kernel", "++policy.dtensor_cfg.loss_kernel=liger"),
        ("flash_attn", "++policy.dtensor_cfg.attention_kernel=flash_attn"),
    ],
)
def test_so_is_one_that_an_optimizer_the_loss_or_attention_needs(monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    assert "is not installed on this machine" in texts(training_findings(extra, cluster=HERE))
    assert "is not installed on this machine" not in texts(training_findings(extra))
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    sys.modules[package].__spec__ = ModuleSpec(package, None)
    assert "is not installed on this machine" not in texts(training_findings(extra, cluster=HERE))
