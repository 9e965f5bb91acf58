"""Models that nothing can be read from, and adapters for layers that they do not have."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

import pytest

from skills_pipe.pipeline.checks.model import check_adapted_layers
from skills_pipe.pipeline.checks.questions import HEAD_BYTES, Answers, Look
from skills_pipe.pipeline.checks.request import Request
from skills_pipe.pipeline.cli import main
from skills_pipe.pipeline.cluster.config import ClusterConfig, ExecutorKind, Mount
from skills_pipe.pipeline.commands.sft import plan
from skills_pipe.pipeline.commands.sft.checks.base_model import check_base_model, check_packed_model
from skills_pipe.pipeline.commands.sft.options import SftOptions
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.training.config import load_config
from skills_pipe.training.config.estimate import FAMILIES, ModelShape
from tests.training.tiny import tiny_model

LORA = "++policy.dtensor_cfg.lora_cfg"
BY_NAME = f"{LORA}.match_all_linear=false"


def told(shape, *overrides):
    needed = ["++policy.model_name=m", "++data.train_data_path=d.jsonl"]
    policy = load_config(None, [*needed, f"{LORA}.enabled=true", *overrides]).policy
    return [str(finding) for finding in check_adapted_layers(policy, shape)]


@pytest.mark.parametrize(
    ("family", "overrides", "expected"),
    [
        ("llama", ("target_modules=[qproj]",), "'qproj' matches no linear layer of the model"),
        ("llama", ("target_modules=[qproj]",), "did you mean 'q_proj'?"),
        ("llama", ("target_modules=[lm_head]",), "lm_head gets no adapter"),
        ("llama", ("target_modules=[]", "exclude_modules=['*_proj']"), "no linear layer of the model is left"),
        ("phi3", ("target_modules=[q_proj]",), "'q_proj' matches no linear layer of the model"),
        ("gpt2", (), "no linear layer of the model is left"),
    ],
)
def test_layers_that_the_model_does_not_have_are_told(family, overrides, expected):
    by_name = [BY_NAME] if overrides else []
    found = told(shape_of(family), *by_name, *(f"{LORA}.{override}" for override in overrides))
    assert len(found) == 1 and expected in found[0], found


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gpt2"}))
def test_all_linear_layers_are_there_in_every_other_family(family):
    assert told(shape_of(family)) == []
    assert told(shape_of(family), BY_NAME, f"{LORA}.target_modules=[linear_qkv, o_proj]") == []


def test_of_whole_models_there_is_nothing_to_tell():
    assert told(shape_of("gpt2"), f"{LORA}.enabled=false") == []


def shape_of(family):
    return ModelShape.of(tiny_model(family).config.to_dict())


CONFIG = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 32,
}


@pytest.fixture
def launch(tmp_path, monkeypatch, capsys):
    """Dry runs in a folder with data; what they tell."""
    monkeypatch.chdir(tmp_path)
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")

    def run(model, *words):
        command = ["nemo_rl", "sft", "--output_dir=out", f"--hf_model={model}", "--training_data=rows.jsonl"]
        code = main([*command, "++sft.max_num_steps=1", *words, "--dry_run"])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "has no config.json: it is no model of transformers (--hf_model)"),
        ("not json", "config.json is no JSON object (--hf_model)"),
        ("", "config.json is empty (--hf_model)"),
        ("[]", "config.json is no JSON object (--hf_model)"),
    ],
)
def test_folders_that_hold_no_model_are_told_before_anything_runs(launch, tmp_path, content, expected):
    (tmp_path / "model").mkdir()
    if content is not None:
        (tmp_path / "model/config.json").write_text(content)
    code, output = launch("model")
    assert code == 2 and expected in output, output
    # The control: the same folder with a model.
    (tmp_path / "model/config.json").write_text(json.dumps(CONFIG))
    code, output = launch("model")
    assert code == 0 and "config.json" not in output, output


@pytest.mark.parametrize("name", ["model.nemo", "folder/model.nemo", "./folder/model.nemo"])
def test_archives_are_to_be_unpacked_first(launch, tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
    code, output = launch(name)
    assert code == 2, "folder/model.nemo could be an id on the hub as well"
    (line,) = [line for line in output.splitlines() if "is an archive, not a folder (--hf_model): unpack it" in line]
    words = shlex.split(line[line.index("ns convert") :].replace("FOLDER", "unpacked"))[1:]
    assert main([*words, "--dry_run"]) == 0, "the command that is told is one"
    # The controls: a model in a folder that is called so, and the unpacked one.
    path.unlink()
    for folder in (path, tmp_path / "unpacked"):
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(CONFIG))
        code, output = launch(folder.relative_to(tmp_path) if folder != path else name)
        assert code == 0 and "is an archive" not in output, output


def test_an_archive_on_a_cluster_is_told_where_nobody_can_look():
    cluster = ClusterConfig(name="slurm", executor=ExecutorKind.SLURM, job_dir="/jobs", account="me", partition="gpu")

    def told(name):
        options = build(SftOptions, {"output_dir": "/w/o", "hf_model": name, "training_data": "/w/d", "num_gpus": 1})
        request = Request(options=options, extras=(), cluster=cluster, plan=plan(options, (), cluster))
        return [str(finding) for finding in check_packed_model(request)]

    assert "the model es/m.nemo is an archive" in told("es/m.nemo")[0]
    assert "the model /w/m.nemo is an archive" in told("/w/m.nemo")[0]
    assert told("es/m") == [], "the control"


def test_layers_are_compared_with_the_model_on_disk(launch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(CONFIG))
    adapters = (f"{LORA}.enabled=true", BY_NAME)
    code, output = launch("model", *adapters, f"{LORA}.target_modules=[attn]")
    assert code == 2 and f"'attn' matches no linear layer of the model ({LORA[2:]}.target_modules)" in output, output
    code, output = launch("model", *adapters, f"{LORA}.target_modules=[q_proj]")
    assert code == 0, output


def test_a_run_before_may_still_make_the_model(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "records"))
    (tmp_path / "model").mkdir()
    assert main(["run_cmd", "--expname=download", "true"]) == 0
    code, output = launch("model", "--run_after=download")
    assert code == 0 and "config.json" not in output, output


def test_what_was_not_read_to_its_end_is_not_judged(launch, tmp_path):
    (tmp_path / "model").mkdir()
    names = {str(number): "x" * 9 for number in range(5000)}
    (tmp_path / "model/config.json").write_text(json.dumps(CONFIG | {"id2label": names}))
    assert (tmp_path / "model/config.json").stat().st_size > HEAD_BYTES
    code, output = launch("model")
    assert code == 0 and "config.json" not in output, output


def test_links_to_files_are_files(launch, tmp_path):
    (tmp_path / "blob").write_text(json.dumps(CONFIG))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").symlink_to(tmp_path / "blob")
    assert launch("model")[0] == 0
    (tmp_path / "blob").unlink()
    assert launch("model")[0] == 2


def test_on_a_cluster_where_jobs_may_see_more_it_is_a_warning():
    cluster = ClusterConfig(
        name="lab",
        executor=ExecutorKind.SLURM,
        job_dir="/jobs",
        containers={"nemo-rl": "/i.sqsh"},
        mounts=tuple(Mount(source=path, target=path) for path in ("/m", "/o", "/d.jsonl")),
    )
    options = build(SftOptions, {"output_dir": "/o", "hf_model": "/m", "training_data": "/d.jsonl", "num_gpus": 8})
    folder = Look(kind="folder", readable=True, nearest="/m", writable=False)
    missing = Look(kind="missing", readable=False, nearest="/m", writable=False)
    answers = Answers(looks={"/m": folder, "/m/config.json": missing})
    request = Request(
        options=options, extras=(), cluster=cluster, plan=plan(options, (), cluster), asked=lambda: answers
    )
    (finding,) = check_base_model(request).findings
    assert str(finding).startswith("warning: /m has no config.json")
    # The control: where nobody has looked there is nothing to tell.
    told = check_base_model(replace(request, asked=lambda: Answers()))
    assert told.findings == () and told.left_out == "it cannot be looked at"


def test_names_on_the_hub_and_folders_that_are_missing_are_told_elsewhere(launch):
    assert "config.json" not in launch("missing")[1]


def test_a_compiler_that_is_not_there_is_a_warning(launch, tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps(CONFIG))
    monkeypatch.setenv("CXX", "no-compiler")
    told = "torch compiles, and there is no no-compiler on this machine"
    assert f"warning: {told} (policy.dtensor_cfg.compile)" in launch("model", "++policy.dtensor_cfg.compile=true")[1]
    assert told not in launch("model")[1]
    # The control: one that is there.
    monkeypatch.setenv("CXX", "sh")
    assert "torch compiles" not in launch("model", "++policy.dtensor_cfg.compile=true")[1]
