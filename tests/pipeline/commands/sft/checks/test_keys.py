"""Keys of the trainer that are wrong, or need what is not there, told before the queue."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

from skills_pipe.pipeline.checks.finding import Finding, errors_in
from skills_pipe.pipeline.checks.request import Request
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.commands.sft import SftOptions, plan
from skills_pipe.pipeline.commands.sft.checks.keys import check_training
from skills_pipe.pipeline.options.declaration import build

SLURM = ClusterConfig(
    name="c",
    executor=ExecutorKind.SLURM,
    container_runtime=ContainerRuntime.PYXIS,
    job_dir="/jobs",
    account="me",
)
HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")
BASE = {
    "output_dir": "/workspace/run",
    "hf_model": "org/model",
    "training_data": "/data/d.jsonl",
    "num_gpus": 1,
}


@pytest.fixture(autouse=True)
def _a_key_of_weights_and_biases(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "w")


def texts(findings: list[Finding]) -> str:
    return "\n".join(str(finding) for finding in findings)


def training_findings(*extras: str, cluster: ClusterConfig = SLURM, **changes: Any) -> list[Finding]:
    options = build(SftOptions, BASE | changes)
    request = Request(
        options=options, extras=extras, cluster=cluster, plan=plan(options, extras, cluster), missing=frozenset()
    )
    return list(check_training(request))


def test_good_keys_have_no_findings():
    assert training_findings("++sft.max_num_steps=100", "++policy.train_global_batch_size=8") == []


def test_keys_of_the_other_backend_are_told_before_the_queue():
    (told,) = training_findings("++policy.megatron_cfg.optimizer.lr=5e-5", "++policy.lr=1e-5")
    assert not errors_in([told])
    assert "policy.megatron_cfg.optimizer.lr: the fsdp backend does not read it" in told.what
    # The control: the switch between the backends, which the launcher sets itself, is read.
    assert training_findings("++policy.megatron_cfg.enabled=false") == []


def test_unknown_keys_are_told_with_the_nearest_one():
    found = texts(training_findings("++sft.max_num_step=100"))
    assert "did you mean 'sft.max_num_steps'" in found


def test_a_problem_with_a_key_of_the_launcher_names_the_flag():
    found = training_findings(backend="megatron")
    assert [finding.where for finding in found] == ["--backend"]
    typed = training_findings("++policy.megatron_cfg.enabled=true", "++policy.dtensor_cfg.enabled=false")
    assert "++policy.megatron_cfg.enabled=true" in (typed[0].where or "")


def test_all_wrong_keys_are_told_at_once():
    assert len(training_findings("++sft.max_num_step=100", "++policy.lrr=1", "++sft.seed=many")) == 3


def test_keys_that_contradict_a_flag_are_told():
    found = training_findings("++checkpointing.checkpoint_dir=/elsewhere", "++cluster.num_nodes=4")
    assert [str(finding) for finding in found] == [
        "error: checkpointing.checkpoint_dir follows from --output_dir (++checkpointing.checkpoint_dir): "
        "give --output_dir instead",
        "error: cluster.num_nodes follows from --num_nodes (++cluster.num_nodes): give --num_nodes instead",
    ]


def test_a_run_without_end_is_told():
    found = texts(training_findings("++sft.max_num_steps=100000000", "++sft.max_num_epochs=100000000"))
    assert "bounds the run" in found


@pytest.mark.parametrize(
    ("extras", "changes", "told"),
    [
        (("++sft.max_num_steps=200",), {"average_steps": "100,300"}, "error: step 300 is never reached"),
        (("++sft.max_num_steps=200",), {"average_steps": "100,150"}, "error: step 150 is not saved"),
        (("++sft.max_num_epochs=2",), {"average_steps": "100,150"}, "warning: step 150 is not saved"),
        (
            ("++sft.max_num_steps=200", "++checkpointing.save_period=0"),
            {"average_steps": "100,200"},
            "error: step 100 is not saved: checkpoints are saved at the end only",
        ),
        (("++sft.max_num_steps=200",), {"conversion_step": "250"}, "error: step 250 is never reached"),
        (
            ("++sft.max_num_steps=5000", "++checkpointing.keep_top_k=10", "++checkpointing.keep_steps=[5000]"),
            {"average_steps": "100,5000"},
            "warning: step 100 may be deleted before it is needed",
        ),
    ],
)
def test_steps_that_will_not_be_there_are_told(extras, changes, told):
    assert told in texts(training_findings(*extras, **changes))


@pytest.mark.parametrize("steps", ["100,200", "100,250"])
def test_multiples_of_the_period_and_the_last_step_are_there(steps):
    last = steps.split(",")[-1]
    assert training_findings(f"++sft.max_num_steps={last}", average_steps=steps) == []


def test_a_missing_key_of_weights_and_biases_is_told(monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY")
    assert "error: jobs log to Weights & Biases, and WANDB_API_KEY is not set" in texts(
        training_findings(wandb_project="mine")
    )
    assert "warning: nothing is sent to Weights & Biases: WANDB_API_KEY" in texts(training_findings())
    assert training_findings(disable_wandb=True) == []
    monkeypatch.setenv("WANDB_API_KEY", "w")
    assert training_findings() == []


def test_without_training_nothing_is_known_of_steps():
    assert training_findings(num_training_jobs=0, average_steps="7,8") == []


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
