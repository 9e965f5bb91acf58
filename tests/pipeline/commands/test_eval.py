"""``ns eval``: one independent job for each benchmark, then one table."""

import json
from dataclasses import replace
from typing import Any

import pytest

from skills_pipe.errors import OptionError, PlanError
from skills_pipe.pipeline.checks.request import Request
from skills_pipe.pipeline.cli import eval, sft_nemo_rl, wrap_arguments
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.commands.eval import EvalOptions, check, plan
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.plan import EdgeKind, Mount, Plan

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")
SLURM = ClusterConfig(name="slurm", executor=ExecutorKind.SLURM, job_dir="/jobs", partition="gpu", cpu_partition="cpu")
BASE = {"model": "/m/final", "server_type": "hf", "benchmarks": "gsm8k,arithmetic", "output_dir": "/r/", "expname": "e"}


def options(**changes: Any) -> EvalOptions:
    return build(EvalOptions, BASE | changes)


def planned(cluster: ClusterConfig = HERE, *, extras: tuple[str, ...] = (), **changes: Any) -> Plan:
    return plan(options(**changes), extras, cluster)


def found(missing: frozenset[str] = frozenset(), **changes: Any) -> list[str]:
    given = options(**changes)
    request = Request(options=given, extras=(), cluster=HERE, plan=plan(given, (), HERE), missing=missing)
    return [str(finding) for finding in check(request)]


def test_benchmarks_are_independent_and_the_summary_waits_for_all():
    made = planned()
    assert [job.name for job in made.jobs] == ["e-gsm8k", "e-arithmetic", "e-summarize-results"]
    assert made.job("e-gsm8k").edges == made.job("e-arithmetic").edges == ()
    assert {edge.upstream: edge.kind for edge in made.job("e-summarize-results").edges} == {
        "e-gsm8k": EdgeKind.SUCCEEDED,
        "e-arithmetic": EdgeKind.SUCCEEDED,
    }
    assert made.stage("summarize-results").output is None
    assert made.stage("gsm8k").output == "/r/eval-results/gsm8k"


def test_the_program_gets_what_the_options_say():
    argv = planned(split="train", data_dir="/d", extras=("++max_samples=2",)).job("e-gsm8k").command.argv
    assert argv == (
        "python",
        "-m",
        "skills_pipe.evaluation.evaluate",
        "--benchmark=gsm8k",
        "--data_dir=/d",
        "--model=/m/final",
        "--output_dir=/r/eval-results/gsm8k",
        "--server_type=hf",
        "--split=train",
        "++max_samples=2",
    )


def test_numbers_behind_benchmarks_are_sampled_runs():
    made = planned(benchmarks="gsm8k:4, arithmetic", starting_seed=10)
    assert {"--num_random_seeds=4", "--starting_seed=10"} <= set(made.job("e-gsm8k").command.argv)
    assert not any("seed" in word for word in made.job("e-arithmetic").command.argv)


def test_the_data_of_benchmarks_is_looked_for_where_it_is_prepared(monkeypatch):
    monkeypatch.delenv("NEMO_SKILLS_DATA_DIR", raising=False)
    assert planned().stage("gsm8k").inputs == ("/m/final", "/jobs/benchmarks/gsm8k/test.jsonl")
    monkeypatch.setenv("NEMO_SKILLS_DATA_DIR", "/env")
    assert planned().stage("gsm8k").inputs[1] == "/env/gsm8k/test.jsonl"
    monkeypatch.delenv("NEMO_SKILLS_DATA_DIR")
    in_containers = replace(SLURM, job_dir="/lustre/jobs", container_runtime=ContainerRuntime.PYXIS)
    with pytest.raises(OptionError, match="--data_dir is missing"):
        planned(in_containers)
    mounted = replace(in_containers, mounts=(Mount(source="/lustre", target="/w"),))
    assert planned(mounted).stage("gsm8k").inputs[1] == "/w/jobs/benchmarks/gsm8k/test.jsonl"


def test_generating_in_the_job_takes_its_gpus():
    made = planned(SLURM, server_gpus=2, data_dir="/d")
    assert (made.job("e-gsm8k").resources.num_gpus, made.job("e-gsm8k").resources.partition) == (2, "gpu")
    assert made.job("e-summarize-results").resources.partition == "cpu"


def test_a_server_does_the_work_elsewhere():
    made = planned(server_type="vllm", server_address="http://h:1", server_gpus=8, model="org/m")
    assert made.job("e-gsm8k").resources.num_gpus == 0
    assert "--server_address=http://h:1" in made.job("e-gsm8k").command.argv
    assert made.stage("gsm8k").inputs == ("/jobs/benchmarks/gsm8k/test.jsonl",)
    assert made.stage("gsm8k").options["model"] == "org/m"


@pytest.mark.parametrize(("prompt", "inputs"), [("mine.yaml", ("/home/me/mine.yaml",)), ("generic/math", ())])
def test_a_prompt_of_your_own_is_an_input(prompt, inputs):
    """Edited, it gives other answers: the evaluation is not finished then."""
    assert planned(extras=(f"++prompt_config={prompt}",)).stages[0].inputs[2:] == inputs


def test_the_summary_can_be_left_out():
    assert [job.name for job in planned(auto_summarize_results=False).jobs] == ["e-gsm8k", "e-arithmetic"]


def test_without_an_address_each_job_starts_its_own_server():
    made = planned(SLURM, server_type="trtllm", server_gpus=8, data_dir="/d", server_args="--max_batch_size 4")
    for name in ("gsm8k", "arithmetic"):
        job = made.job(f"e-{name}")
        (server,) = job.beside
        assert server.name == "server" and server.service and server.ready == "/health"
        assert server.command.argv[4:] == (
            *("trtllm-serve", "/m/final", "--host", "0.0.0.0", "--tp_size", "8", "--max_batch_size", "4"),
        )
        assert server.command.container == "trtllm" and job.command.container == "nemo-skills"
        assert (job.resources.num_gpus, server.num_gpus, job.main_gpus, job.resources.partition) == (8, 8, 0, "gpu")
        assert not any("server_address" in word for word in job.command.argv)
        assert made.stage(name).inputs[0] == "/m/final", "other weights at the same path are another evaluation"
    assert made.job("e-summarize-results").resources.num_gpus == 0


def test_what_decides_the_answers_of_a_server_is_part_of_the_identity_and_its_size_is_not():
    base = {"server_type": "vllm", "data_dir": "/d"}
    small = planned(SLURM, server_gpus=1, **base).stage("gsm8k")
    assert small == planned(SLURM, server_gpus=8, server_nodes=2, **base).stage("gsm8k")
    assert small != planned(SLURM, server_gpus=1, server_args="--quantization fp8", **base).stage("gsm8k")


def test_a_server_on_two_nodes_takes_them_for_its_job():
    job = planned(SLURM, server_type="vllm", server_gpus=8, server_nodes=2, data_dir="/d").job("e-gsm8k")
    assert (job.resources.num_nodes, job.members[0].nodes, job.members[1].nodes) == (2, 1, 2)


def test_a_server_that_cannot_be_is_told():
    with pytest.raises(OptionError, match="a trtllm server in the job needs GPUs"):
        planned(server_type="trtllm")
    assert "takes no address" in found(server_address="http://h:1")[0]
    assert "needs the address of a service" in found(server_type="openai")[0]
    assert found() == []


def test_a_program_that_is_not_on_this_machine_is_told_before_anything_starts(monkeypatch, tmp_path):
    (told,) = found(server_type="trtllm", server_gpus=8)
    assert "there is no program trtllm-serve on this machine" in told
    (tmp_path / "trtllm-serve").write_text("#!/bin/sh\n")
    (tmp_path / "trtllm-serve").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found(server_type="trtllm", server_gpus=8) == []


def test_missing_data_is_told_with_the_command_that_fetches_it():
    path = "/jobs/benchmarks/gsm8k/test.jsonl"
    assert found(missing=frozenset({path})) == [
        f"error: there is no data for benchmark 'gsm8k' ({path}): run `ns prepare_data gsm8k` with the same --data_dir"
    ]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"benchmarks": "gsm8"}, "did you mean 'gsm8k'"),
        ({"benchmarks": "gsm8k,gsm8k:2"}, "named twice"),
        ({"benchmarks": "gsm8k:x"}, "does not name a number of seeds"),
        ({"benchmarks": ","}, "no benchmark is named"),
        ({"server_type": "trt"}, "did you mean 'trtllm'"),
    ],
)
def test_options_that_cannot_be_are_refused(changes, told):
    with pytest.raises(OptionError) as caught:
        planned(**changes)
    assert told in str(caught.value)


def test_the_documented_chain_is_planned_before_any_of_it_has_run(tmp_path, monkeypatch, capsys):
    """Training, then the evaluation of the model that it will make, with a server of TensorRT-LLM in each job."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ws" / "base").mkdir(parents=True)
    (tmp_path / "ws" / "base" / "config.json").write_text(json.dumps(TINY))
    (tmp_path / "ws" / "sft.jsonl").write_text(json.dumps({"input": "1+1=", "output": "2"}) + "\n")
    for name in ("gsm8k", "arithmetic"):
        (tmp_path / "ws" / "benchmarks" / name).mkdir(parents=True)
        (tmp_path / "ws" / "benchmarks" / name / "test.jsonl").touch()
    cluster = {
        "executor": "slurm",
        "job_dir": f"{tmp_path}/ws",
        "account": "me",
        "skip_hf_home_check": True,
        "container_runtime": "pyxis",
        "containers": {"nemo-rl": "/a.sqsh", "nemo-skills": "/b.sqsh", "trtllm": "/c.sqsh"},
        "mounts": [f"{tmp_path}/ws:/workspace"],
    }
    base = {"cluster": cluster, "dry_run": True}
    sft_nemo_rl(
        ctx=wrap_arguments("++sft.max_num_steps=9"), expname="train", output_dir="/workspace/out", num_training_jobs=4,
        hf_model="/workspace/base", training_data="/workspace/sft.jsonl", num_gpus=8, disable_wandb=True, **base,
    )  # fmt: skip
    asked = {"model": "/workspace/out/final_hf_model", "server_type": "trtllm", "server_gpus": 8, **base}
    asked |= {"output_dir": "/workspace/out/results/", "run_after": "train"}
    with pytest.raises(OptionError, match="there is no benchmark 'math'"):
        eval(benchmarks="gsm8k,math", **asked)
    capsys.readouterr()
    eval(benchmarks="gsm8k,arithmetic", show_scripts=True, **asked)
    told = capsys.readouterr().out
    assert "eval-gsm8k  1 node · 8 GPUs" in told and "with server" in told
    assert "trtllm-serve /workspace/out/final_hf_model --host 0.0.0.0 --tp_size 8" in told


def test_negative_control_a_model_that_nothing_makes_is_refused(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path))
    with pytest.raises(PlanError, match="no-such-model"):
        eval(model="./no-such-model", server_type="hf", benchmarks="arithmetic", output_dir="out", dry_run=True)


TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 100,
}
