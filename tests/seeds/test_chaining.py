"""The commands of the NeMo-Skills training page, as users know them, on a real Slurm in containers.

Replaced are sizes and paths, the backend (megatron is refused), and the server and benchmarks of the evaluation.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml

from skills_pipe.pipeline.cli import main, prepare_data, wrap_arguments
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.commands import eval as eval_command
from skills_pipe.pipeline.commands import sft
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.plan import Plan
from skills_pipe.pipeline.records.store import Run
from skills_pipe.pipeline.scripts.place import render
from tests.pipeline.golden_file import check_golden
from tests.slurm.image import SmallImage
from tests.training.tiny import save_tiny_model

COMMAND = """\
ns nemo_rl sft \\
    --cluster=slurm \\
    --expname=my-training-job \\
    --output_dir=/workspace/my-training-job/checkpoints \\
    --hf_model=meta-llama/Llama-3.1-8B \\
    --num_nodes=8 \\
    --num_gpus=8 \\
    --num_training_jobs=4 \\
    --backend=megatron \\
    --training_data=/data/sft-data.jsonl
"""
KEYS = """\
    ++sft.max_num_epochs=2 \\
    ++sft.max_num_steps=1000 \\
    ++policy.train_global_batch_size=32 \\
    ++policy.train_micro_batch_size=1 \\
    ++policy.tensor_model_parallel_size=4 \\
    ++policy.sequence_packing.enabled=True \\
    ++policy.context_parallel_size=4
"""
SCRIPT = """\
from nemo_skills.pipeline.cli import wrap_arguments, sft_nemo_rl, eval

expname = "my-training-job"
cluster = "slurm"
output_dir = f"/workspace/{expname}/checkpoints"

sft_nemo_rl(
    ctx=wrap_arguments(""),
    cluster=cluster,
    expname=expname,
    output_dir=output_dir,
    hf_model="meta-llama/Llama-3.1-8B",
    num_nodes=8,
    num_gpus=8,
    num_training_jobs=4,
    training_data="/data/sft-data.jsonl",
)

eval(
    ctx=wrap_arguments(""),
    cluster=cluster,
    model=f"{output_dir}/final_hf_model",
    server_type="trtllm",
    output_dir=f"{output_dir}/results/",
    benchmarks="gsm8k,math",
    server_gpus=8,
    run_after=expname,
)
"""
SMALL = (
    "++sft.max_num_epochs=2 ++sft.max_num_steps=4 ++checkpointing.save_period=1 "
    "++policy.train_global_batch_size=8 ++policy.train_micro_batch_size=1 ++policy.sequence_packing.enabled=True "
    "++policy.max_total_sequence_length=128 ++policy.precision=float32"
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with ``cluster_configs/slurm.yaml``."""
    monkeypatch.chdir(tmp_path)
    for name in ("NEMO_SKILLS_CONFIG", "NEMO_SKILLS_CONFIG_DIR", "NEMO_SKILLS_DATA_DIR", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "cluster_configs").mkdir()
    return tmp_path


# As written


def test_the_command_as_written_makes_these_scripts(folder):
    write_config(folder, job_dir="/lustre/lab/jobs", workspace="/lustre/lab", data="/lustre/data")
    options, extras = parsed(sft, words_of(COMMAND)[3:] + words_of(KEYS))
    plan = sft.plan(options, extras, load_cluster("slurm", None))
    check_golden("scripts/seed-003-sft.txt", scripts_of(plan))


def test_the_evaluation_as_written_makes_these_scripts(folder):
    write_config(folder, job_dir="/lustre/lab/jobs", workspace="/lustre/lab", data="/lustre/data")
    output_dir = "/workspace/my-training-job/checkpoints"
    values = {
        "cluster": "slurm",
        "model": f"{output_dir}/final_hf_model",
        "server_type": "trtllm",
        "output_dir": f"{output_dir}/results/",
        "benchmarks": "gsm8k",
        "server_gpus": 8,
        "run_after": "my-training-job",
    }
    plan = eval_command.plan(build(eval_command.EvalOptions, values), (), load_cluster("slurm", None))
    check_golden("scripts/seed-003-eval.txt", scripts_of(plan))


def test_as_written_it_is_refused_before_anything_is_submitted(folder, capsys):
    write_config(folder, job_dir=f"{folder}/lab/jobs", workspace=f"{folder}/lab", data=f"{folder}/data")
    assert main(words_of(COMMAND)[1:]) == 2
    told = capsys.readouterr().err
    assert "there is no megatron backend yet (--backend)" in told
    assert not (folder / "lab").exists()


# On Slurm


@pytest.mark.slurm
@pytest.mark.slow
def test_the_command_trains_in_a_chain_of_four_jobs(slurm, pyxis, folder):
    lab(folder, pyxis)
    command = COMMAND
    for words, others in {
        "--hf_model=meta-llama/Llama-3.1-8B": "--hf_model=/workspace/base",
        "--num_nodes=8": "--num_nodes=2",
        "--num_gpus=8": "--num_gpus=1",
        "--backend=megatron": "--backend=fsdp",
    }.items():
        assert words in command
        command = command.replace(words, others)
    assert main([*words_of(command)[1:], *words_of(SMALL), "++checkpointing.stop_after_steps=2"]) == 0
    assert main(["status", "my-training-job", "--cluster=slurm", "--watch"]) == 0
    output = folder / "lab/my-training-job/checkpoints"
    assert list((output / "final_hf_model").glob("*.safetensors"))
    assert (output / "checkpoints/step_4/manifest.json").exists()
    assert slurm.run("squeue", "-h") == ""


@pytest.mark.slurm
@pytest.mark.slow
def test_the_script_trains_and_then_evaluates(slurm, pyxis, folder):
    lab(folder, pyxis)
    prepare_data(ctx=wrap_arguments("arithmetic ++arithmetic.test_count=8"), cluster="slurm").wait()
    script = SCRIPT
    first, second = "cluster=cluster,\n    expname", "cluster=cluster,\n    model"
    for words, others in {
        "from nemo_skills.": "from skills_pipe.",
        f'wrap_arguments(""),\n    {first}': f'wrap_arguments("{SMALL}"),\n    {first}',
        f'wrap_arguments(""),\n    {second}': f'wrap_arguments("++inference.tokens_to_generate=4"),\n    {second}',
        "meta-llama/Llama-3.1-8B": "/workspace/base",
        "num_nodes=8": "num_nodes=2",
        "num_gpus=8,\n    num_training": "num_gpus=1,\n    num_training",
        "trtllm": "hf",
        "gsm8k,math": "arithmetic",
        "server_gpus=8": "server_gpus=1",
        "\neval(": "\nevaluation = eval(",
    }.items():
        assert words in script
        script = script.replace(words, others)
    names: dict[str, object] = {}
    exec(compile(script, "chaining.py", "exec"), names)
    evaluation = names["evaluation"].wait()
    assert evaluation.succeeded
    results = folder / "lab/my-training-job/checkpoints/results/eval-results"
    assert json.loads((results / "arithmetic/metrics.json").read_text())
    assert slurm.run("squeue", "-h") == ""


def words_of(text: str) -> list[str]:
    """The words of a command that goes over several lines."""
    return shlex.split(text.replace("\\\n", " "))


def parsed(module, words: list[str]):
    """Options and words for the inner program, as the command line gives them."""
    options = [word for word in words if not word.startswith("+")]
    values = dict(word.removeprefix("--").split("=", 1) for word in options)
    return build(module.COMMAND.options, values), tuple(word for word in words if word.startswith("+"))


def scripts_of(plan: Plan) -> str:
    """All scripts of a plan, one after the other."""
    cluster = load_cluster("slurm", None)
    run = Run(Path("/lustre/lab/jobs/experiments/my-training-job/run-1"))
    code = "/lustre/lab/jobs/code/0123abcd"
    return "\n".join(render(job, plan, cluster, run, code) for job in plan.jobs)


def write_config(folder: Path, *, job_dir: str, workspace: str, data: str, **more: object) -> None:
    config = {
        "executor": "slurm",
        "job_dir": job_dir,
        "account": "research",
        "partition": "batch",
        "cpu_partition": "cpu",
        "default_timeout": "04:00:00",
        "container_runtime": "pyxis",
        "containers": {name: f"/images/{name}.sqsh" for name in ("nemo-rl", "nemo-skills", "trtllm")},
        "mounts": [f"{workspace}:/workspace", f"{data}:/data:ro"],
        "env_vars": ["HF_HOME=/workspace/hf"],
        **more,
    }
    (folder / "cluster_configs/slurm.yaml").write_text(yaml.safe_dump(config))


def lab(folder: Path, image: SmallImage) -> None:
    """A model, data and a cluster configuration that sees them at /workspace and /data."""
    (folder / "lab/hf").mkdir(parents=True)
    (folder / "data").mkdir()
    save_tiny_model(folder / "lab/base")
    rows = [{"input": f"What is {number} + 1?", "output": f"It is {number + 1}."} for number in range(64)]
    (folder / "data/sft-data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_config(
        folder,
        job_dir=f"{folder}/lab/jobs",
        workspace=f"{folder}/lab",
        data=f"{folder}/data",
        containers={name: str(image.folder) for name in ("nemo-rl", "nemo-skills")},
        mounts=[f"{folder}/lab:/workspace", f"{folder}/data:/data:ro", *image.mounts],
        env_vars=["HF_HOME=/workspace/hf", "OMP_NUM_THREADS=1"],
    )
