"""``ns nemo_rl sft``: the plan that options make."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from skills_pipe.artifacts.identity import Identity
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.cli import main
from skills_pipe.pipeline.cluster.config import ClusterConfig, ContainerRuntime, ExecutorKind
from skills_pipe.pipeline.commands.sft import plan
from skills_pipe.pipeline.commands.sft.keys import keys_of, read_keys
from skills_pipe.pipeline.commands.sft.options import SftOptions
from skills_pipe.pipeline.decisions.changes import changes_between
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.plan import EdgeKind, Launch, Mount, Plan
from tests.pipeline.commands.sft.checks.findings import HERE

SLURM = ClusterConfig(
    name="slurm",
    executor=ExecutorKind.SLURM,
    container_runtime=ContainerRuntime.PYXIS,
    job_dir="/jobs",
    account="me",
    partition="gpu",
    cpu_partition="cpu",
    default_time_limit=4 * 3600,
    time_limits={"cpu": 3600},
    mounts=(Mount(source="/lustre", target="/workspace"),),
)
BASE = {"output_dir": "/workspace/run", "hf_model": "meta-llama/Llama-3.1-8B", "training_data": "/workspace/d.jsonl"}


def planned(cluster: ClusterConfig = SLURM, *, extras: tuple[str, ...] = (), **options: Any) -> Plan:
    given = BASE | ({"num_gpus": 8} if cluster is SLURM else {}) | options
    return plan(build(SftOptions, {k: v for k, v in given.items() if v is not None}), extras, cluster)


def edges(made: Plan, job: str) -> dict[str, EdgeKind]:
    return {edge.upstream: edge.kind for edge in made.job(job).edges}


def key(made: Plan, name: str, job: str = "sft-sft-0") -> str | None:
    words = [word for word in made.job(job).command.argv if word.startswith(f"++{name}=")]
    return words[-1].partition("=")[2] if words else None


def refused(**options: Any) -> str:
    with pytest.raises(OptionError) as caught:
        planned(**options)
    return str(caught.value)


# --- stages and jobs


def test_a_chain_and_its_conversion():
    made = planned(expname="e", num_training_jobs=3)
    assert [job.name for job in made.jobs] == ["e-sft-0", "e-sft-1", "e-sft-2", "e-convert-final-ckpt"]
    assert edges(made, "e-sft-0") == {}
    assert edges(made, "e-sft-2") == {"e-sft-0": EdgeKind.UNFINISHED, "e-sft-1": EdgeKind.UNFINISHED}
    assert edges(made, "e-convert-final-ckpt") == dict.fromkeys(
        ("e-sft-0", "e-sft-1", "e-sft-2"), EdgeKind.ANY_SUCCEEDED
    )
    assert [stage.output for stage in made.stages] == ["/workspace/run/checkpoints", "/workspace/run/final_hf_model"]
    assert made.stage("convert-final-ckpt").upstream == ("sft",)


def test_averaging_converts_each_step_and_then_averages():
    made = planned(average_steps="100, 200", num_training_jobs=2)
    assert [job.name for job in made.jobs] == [
        "sft-sft-0",
        "sft-sft-1",
        "sft-convert-ckpt-step_100",
        "sft-convert-ckpt-step_200",
        "sft-average-ckpt",
    ]
    for step in (100, 200):
        assert set(edges(made, f"sft-convert-ckpt-step_{step}").values()) == {EdgeKind.ANY_SUCCEEDED}
        assert made.stage(f"convert-ckpt-step_{step}").output == f"/workspace/run/hf_model_step_{step}"
    assert set(edges(made, "sft-average-ckpt").values()) == {EdgeKind.SUCCEEDED}
    assert made.stage("average-ckpt").output == "/workspace/run/final_hf_model"
    assert "--steps=100,200" in made.job("sft-average-ckpt").command.argv
    assert "--remove" not in made.job("sft-average-ckpt").command.argv


@pytest.mark.parametrize("wanted", [{"average_steps": "100,200"}, {"conversion_step": "200"}])
def test_training_keeps_the_steps_that_are_needed_later_and_is_the_same_stage_without_them(wanted):
    kept, plain = planned(**wanted), planned()
    steps = "[100,200]" if "average_steps" in wanted else "[200]"
    assert f"++checkpointing.keep_steps={steps}" in kept.job("sft-sft-0").command.argv
    assert not any("keep_steps" in word for word in plain.job("sft-sft-0").command.argv)
    assert kept.stage("sft").options == plain.stage("sft").options


def test_removal_is_passed_on():
    made = planned(average_steps=[100, 200], remove_checkpoints_after_average=True)
    assert made.job("sft-average-ckpt").command.argv[-1] == "--remove"


@pytest.mark.parametrize("steps", [None, "100,200"])
def test_the_path_of_the_final_model_is_always_honoured(steps):
    made = planned(final_hf_path="/workspace/models/final", average_steps=steps)
    assert made.stages[-1].output == "/workspace/models/final"
    assert "/workspace/models/final" in " ".join(made.jobs[-1].command.argv)


def test_without_training_jobs_only_the_conversion_is_left():
    made = planned(num_training_jobs=0, training_data=None, num_gpus=None, conversion_step=200)
    assert [job.name for job in made.jobs] == ["sft-convert-final-ckpt"]
    assert made.jobs[0].edges == ()
    assert made.stages[0].inputs == ("/workspace/run/checkpoints",)
    assert "--step=200" in made.jobs[0].command.argv


def test_training_takes_gpus_and_the_conversion_a_cpu_node():
    made = planned(num_nodes=4)
    training, conversion = made.job("sft-sft-0"), made.job("sft-convert-final-ckpt")
    assert (training.resources.num_nodes, training.resources.num_gpus, training.resources.partition) == (4, 8, "gpu")
    assert training.resources.time_limit == "0-04:00:00"
    assert training.resources.exclusive
    assert training.command.launch is Launch.PER_GPU
    assert (conversion.resources.num_nodes, conversion.resources.num_gpus) == (1, 0)
    assert (conversion.resources.partition, conversion.resources.time_limit) == ("cpu", "0-01:00:00")
    assert not conversion.resources.exclusive


def test_nodes_can_be_shared():
    assert not planned(exclusive=False).job("sft-sft-0").resources.exclusive


def test_the_same_options_give_the_same_plan_byte_for_byte():
    assert planned(extras=("++a=1",)).to_text() == planned(extras=("++a=1",)).to_text()
    assert planned(extras=("++a=1",)).to_text() != planned(extras=("++a=2",)).to_text()


# --- keys of the trainer


def test_the_trainer_gets_what_the_options_say():
    made = planned(num_nodes=2, validation_data="/workspace/v.jsonl")
    assert key(made, "policy.model_name") == "meta-llama/Llama-3.1-8B"
    assert key(made, "cluster.gpus_per_node") == "8"
    assert key(made, "cluster.num_nodes") == "2"
    assert key(made, "logger.log_dir") == "/workspace/run/training-logs"
    assert key(made, "checkpointing.checkpoint_dir") == "/workspace/run/checkpoints"
    assert key(made, "data.train_data_path") == "/workspace/d.jsonl"
    assert key(made, "data.val_data_path") == "/workspace/v.jsonl"
    assert (key(made, "policy.dtensor_cfg.enabled"), key(made, "policy.megatron_cfg.enabled")) == ("true", "false")


def test_the_backend_switches_one_on_and_the_other_off():
    made = planned(backend="megatron")
    assert (key(made, "policy.dtensor_cfg.enabled"), key(made, "policy.megatron_cfg.enabled")) == ("false", "true")


def test_the_trainer_is_told_that_it_may_go_on_with_other_data():
    assert key(planned(on_change="continue"), "checkpointing.on_change") == "continue"
    assert key(planned(), "checkpointing.on_change") is None
    assert planned(on_change="continue").stages == planned().stages  # how to go on is no part of what is made


def test_keys_of_the_user_come_last_and_so_win():
    made = planned(extras=("++policy.model_name=other", "++x='a b'"))
    assert made.job("sft-sft-0").command.argv[-2:] == ("++policy.model_name=other", "++x='a b'")
    assert key(made, "policy.model_name") == "other"


def test_data_is_a_path_even_where_it_looks_like_an_id_on_the_hub():
    made = planned(HERE, hf_model="org/model", training_data="data/d.jsonl")
    assert key(made, "data.train_data_path") == "/home/me/data/d.jsonl"
    assert key(made, "policy.model_name") == "org/model"


@pytest.mark.parametrize("cluster", [HERE, SLURM], ids=["here", "slurm"])
@pytest.mark.parametrize("data", ["nvidia/OpenMathInstruct-2", "org/rows-v1.5", "squad", "OpenAssistant"])
def test_data_may_be_a_dataset_of_the_hub_by_id_or_by_name(cluster, data):
    made = planned(cluster, training_data=data, validation_data="rajpurkar/squad")
    assert key(made, "data.train_data_path") == data
    assert key(made, "data.val_data_path") == "rajpurkar/squad"


def test_what_lies_here_is_a_path_whatever_it_is_called(tmp_path):
    here = replace(HERE, working_dir=str(tmp_path))
    assert planned(here, training_data="org/rows").stage("sft").inputs[1] == "hf://datasets/org/rows"
    (tmp_path / "org" / "rows").mkdir(parents=True)
    (tmp_path / "squad").touch()
    for data in ("org/rows", "squad"):
        made = planned(here, training_data=data)
        assert key(made, "data.train_data_path") == f"{tmp_path}/{data}"
        assert made.stage("sft").inputs[1] == f"{tmp_path}/{data}"


def test_every_job_of_a_chain_writes_to_one_run_of_weights_and_biases():
    made = planned(expname="e", wandb_project="p", wandb_group="g", num_training_jobs=2)
    for job in ("e-sft-0", "e-sft-1"):
        assert key(made, "logger.wandb_enabled", job) == "true"
        assert key(made, "logger.wandb.id", job) == "e-g-p"
        assert key(made, "logger.wandb.group", job) == "g"
    assert key(planned(), "logger.wandb.id") == "sft-nemo-skills"
    assert key(planned(), "logger.wandb.group") is None


def test_weights_and_biases_is_off_when_disabled_and_here_unless_asked_for():
    assert key(planned(disable_wandb=True), "logger.wandb_enabled") == "false"
    assert key(planned(HERE), "logger.wandb_enabled") == "false"
    assert key(planned(HERE, wandb_project="p"), "logger.wandb_enabled") == "true"
    assert key(planned(disable_wandb=True), "logger.wandb.id") is None


def test_names_that_weights_and_biases_would_refuse_are_refused():
    assert "128 characters" in refused(wandb_project="p" * 129)


# --- on this machine


def test_here_paths_become_absolute_and_one_process_trains():
    made = planned(HERE, output_dir="out", hf_model="base", training_data="./data/d.jsonl")
    assert made.stage("sft").output == "/home/me/out/checkpoints"
    assert key(made, "policy.model_name") == "/home/me/base"
    assert key(made, "data.train_data_path") == "/home/me/data/d.jsonl"
    assert made.job("sft-sft-0").resources.num_gpus == 0
    assert made.job("sft-sft-0").command.working_dir == "/home/me"
    assert key(made, "cluster.gpus_per_node") == "1"


def test_here_more_gpus_mean_more_processes():
    made = planned(HERE, num_gpus=2)
    assert made.job("sft-sft-0").resources.num_gpus == 2
    assert key(made, "cluster.gpus_per_node") == "2"


# --- identity


def test_what_decides_the_result_is_in_the_identity():
    stage = planned(validation_data="/workspace/v.jsonl", extras=("++sft.max_num_steps=10",)).stage("sft")
    assert stage.inputs == ("meta-llama/Llama-3.1-8B", "/workspace/d.jsonl", "/workspace/v.jsonl")
    held_out = {"validation_data": "/workspace/v.jsonl"}
    assert stage.options == {"backend": "fsdp", "++sft.max_num_steps": "10"} | held_out


def test_files_that_keys_of_the_user_name_are_what_is_read():
    named = ("++data.train_data_path=/data/other.jsonl", "++policy.tokenizer.name='/models/my tokenizer'")
    inputs = planned(extras=named).stage("sft").inputs
    assert inputs[1:] == ("/models/my tokenizer", "/data/other.jsonl")
    assert planned(extras=("++data.val_data_path=null",)).stage("sft").inputs == planned().stage("sft").inputs


@pytest.mark.parametrize(
    ("options", "extras", "read"),
    [
        ({"training_data": "nvidia/OpenMathInstruct-2"}, (), ["hf://datasets/nvidia/OpenMathInstruct-2"]),
        ({"training_data": "squad"}, (), ["hf://datasets/rajpurkar/squad"]),
        (
            {"training_data": "squad", "validation_data": "/workspace/v.jsonl"},
            (),
            ["hf://datasets/rajpurkar/squad", "/workspace/v.jsonl"],
        ),
        ({}, ("++data.train_data_path=org/rows",), ["hf://datasets/org/rows"]),
        (
            {},
            ("++data.train=[{data_path:/data/a.jsonl},{dataset_name:squad}]",),
            ["/data/a.jsonl", "hf://datasets/rajpurkar/squad"],
        ),
        ({}, ("++data.validation.data_path=/data/v.jsonl",), ["/workspace/d.jsonl", "/data/v.jsonl"]),
        ({}, ("++data.default={prompt_file:/data/p.txt}",), ["/workspace/d.jsonl", "/data/p.txt"]),
    ],
)
def test_what_is_read_is_what_the_trainer_will_read(options, extras, read):
    assert planned(extras=extras, **options).stage("sft").inputs == ("meta-llama/Llama-3.1-8B", *read)


@pytest.mark.parametrize("cluster", [HERE, SLURM], ids=["here", "slurm"])
@pytest.mark.parametrize("name", ["squad", "OpenAssistant", "tulu3_sft_mixture", "OpenMathInstruct-2"])
def test_a_dataset_by_its_name_is_read_from_the_hub_where_other_keys_are_wrong_too(cluster, name):
    wrong = planned(cluster, training_data=name, validation_data="squad", extras=("++policy.learning_rate=3",))
    right = planned(cluster, training_data=name, validation_data="squad")
    assert wrong.stage("sft").inputs == right.stage("sft").inputs
    assert all(path.startswith("hf://datasets/") for path in wrong.stage("sft").inputs[1:])
    # The control: what is no name stays a path.
    other = planned(cluster, training_data="/workspace/squad", extras=("++policy.learning_rate=3",))
    assert other.stage("sft").inputs[1:] == ("/workspace/squad",)


def test_a_wrong_key_is_told_alone_where_the_data_have_a_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "model").mkdir()
    words = ["nemo_rl", "sft", "--output_dir=out", "--hf_model=./model", "--dry_run", "++policy.learning_rate=3"]
    assert main([*words, "--training_data=squad"]) == 2
    told = capsys.readouterr().err
    assert "unknown key policy.learning_rate" in told and "does not exist" not in told, told
    # The control: what is no name of any, and not there.
    assert main([*words, "--training_data=squads"]) == 2
    assert "squads, which does not exist (--training_data)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        {"final_hf_path": "/workspace/run"},
        {"final_hf_path": "/workspace/run/checkpoints"},
        {"final_hf_path": "/workspace/run/checkpoints/hf"},
        {"final_hf_path": "/workspace/run/hf_model_step_4", "average_steps": "4,6"},
    ],
)
def test_a_model_must_not_take_away_what_it_is_made_of(changes):
    assert "is, or holds, what the model is made of" in refused(output_dir="/workspace/run", **changes)
    # The control: beside the checkpoints there is room.
    planned(output_dir="/workspace/run", final_hf_path="/workspace/run/hf_model_step_4")


def test_a_missing_file_is_told_with_the_key_that_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "output": "b"}\n')
    words = ["nemo_rl", "sft", "--output_dir=out", "--hf_model=./model", "--training_data=rows.jsonl", "--dry_run"]
    assert main([*words, "++data.val_data_path=gone.jsonl"]) == 2
    assert "gone.jsonl, which does not exist (++data.val_data_path)" in capsys.readouterr().err


def test_files_that_change_places_are_another_training():
    """Both stages read the same two files."""
    files = {"training_data": "/workspace/a.jsonl", "validation_data": "/workspace/b.jsonl"}
    one = planned(**files).stage("sft")
    other = planned(training_data=files["validation_data"], validation_data=files["training_data"]).stage("sft")
    assert sorted(one.inputs) == sorted(other.inputs)
    assert one.options != other.options
    (change,) = changes_between(*(Identity.of(options=at.options, inputs={}) for at in (one, other)))
    assert change == '--validation_data: "/workspace/b.jsonl" -> "/workspace/a.jsonl"'


def test_the_revision_of_a_dataset_decides_the_result_too():
    one, other = (planned(extras=(f"++data.train.revision={name}",)).stage("sft") for name in ("v1", "v2"))
    assert one.inputs == other.inputs
    assert one.options != other.options


def test_the_metrics_of_a_training_are_where_the_trainer_writes_them():
    folders = [
        {path.rpartition("/")[0] for path in planned(extras=extras, **options).stage("sft").set_aside_with}
        for extras, options in [
            ((), {}),
            ((), {"log_dir": "/workspace/logs"}),
            (("++logger.log_dir=/workspace/own",), {"log_dir": "/workspace/logs"}),
        ]
    ]
    assert folders == [{"/workspace/run/training-logs"}, {"/workspace/logs/training-logs"}, {"/workspace/own"}]
    names = [path.rpartition("/")[2] for path in planned().stage("sft").set_aside_with]
    assert names == ["metrics.jsonl", "loss.png", "tracked_runs.json", "validation-answers", "tensorboard"]


@pytest.mark.parametrize("folder", ["/workspace/all", "${logger.log_dir}"])
def test_events_in_a_folder_that_is_not_the_trainings_own_stay_where_they_are(folder):
    metrics = planned(extras=(f"++logger.tensorboard.log_dir={folder}",)).stage("sft").set_aside_with
    names = [path.rpartition("/")[2] for path in metrics]
    assert names == ["metrics.jsonl", "loss.png", "tracked_runs.json", "validation-answers"]


def test_layout_and_logging_are_not():
    one = planned(num_gpus=8, num_nodes=1)
    other = planned(num_gpus=4, num_nodes=2, partition="x", wandb_project="p", extras=("++logger.wandb_enabled=false",))
    assert one.stage("sft") == other.stage("sft")
    assert one.stage("sft") != planned(extras=("++sft.seed=1",)).stage("sft")


# --- mistakes


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"training_data": None}, "--training_data is missing"),
        ({"num_gpus": None}, "--num_gpus is missing"),
        ({"training_data": "data/d.jsonl"}, "data/d.jsonl is not an absolute path (--training_data)"),
        ({"training_data": "squat"}, "did you mean 'squad'?"),
        ({"validation_data": "rows/*"}, "organisation/name for a data set on the Hugging Face hub"),
        ({"num_gpus": -1}, "--num_gpus is -1"),
        ({"num_nodes": 0}, "--num_nodes is 0"),
        ({"num_training_jobs": -1}, "--num_training_jobs is -1"),
        ({"average_steps": "100,,200"}, "is not a list of steps"),
        ({"average_steps": "100,x"}, "'100,x' is not a list of steps"),
        ({"average_steps": "100,100"}, "does not name different steps"),
        ({"average_steps": "0"}, "does not name different steps"),
        ({"conversion_step": "good"}, "'good' is not a step"),
        ({"conversion_step": "10", "average_steps": "10"}, "exclude each other"),
        ({"disable_wandb": True, "wandb_project": "p"}, "exclude each other"),
        ({"remove_checkpoints_after_average": True}, "needs --average_steps"),
        ({"backend": "fsdp2"}, "did you mean 'fsdp'"),
    ],
)
def test_options_that_cannot_be_are_refused(options, told):
    assert told in refused(**options)


def test_a_yaml_of_the_trainer_is_answered_with_the_way_to_write_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "d.jsonl").write_text('{"input": "a", "output": "b"}\n')
    words = ["nemo_rl", "sft", "--output_dir=out", "--hf_model=./model", "--training_data=d.jsonl", "--dry_run"]
    assert main([*words, "--config=x.yaml"]) == 2
    told = capsys.readouterr().err
    assert "there is no option --config: " in told and "++key=value" in told and "did you mean" not in told
    assert main([*words, "--confi"]) == 2
    assert "did you mean" in capsys.readouterr().err, "the control: other options get the nearest one"


def test_a_section_can_be_one_override_as_the_documents_say():
    arguments = "++policy.optimizer.kwargs={lr: 0.1}"
    adapters = "++policy.dtensor_cfg.lora_cfg={enabled: true, dim: 16}"
    page = (Path(__file__).parents[4] / "docs/configuration.md").read_text()
    assert f'"{adapters}"' in page and f'~policy.optimizer.kwargs "{arguments}"' in page

    policy = configured("~policy.optimizer.kwargs", arguments, adapters).policy
    assert policy.optimizer.kwargs == {"lr": 0.1}
    assert (policy.dtensor_cfg.lora_cfg.enabled, policy.dtensor_cfg.lora_cfg.dim) == (True, 16)
    assert policy.dtensor_cfg.lora_cfg.alpha == configured().policy.dtensor_cfg.lora_cfg.alpha
    # The control: without ~ it is laid over the other arguments.
    assert "betas" in configured(arguments).policy.optimizer.kwargs


def configured(*extras):
    config, problems = read_keys(keys_of(planned(extras=extras).job("sft-sft-0").command))
    assert not problems
    return config
