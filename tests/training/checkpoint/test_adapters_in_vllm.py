"""Adapter folders that are exported are read by vLLM's own loader as what was merged into the model."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.sft import main
from tests.training.checkpoint.test_adapters import ADAPTERS, KINDS, LORA
from tests.training.sft_arguments import arguments
from tests.training.tiny import save_tiny_model

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore:torch.distributed is disabled")]

FAMILIES = ("llama", "qwen2", "qwen3")
READ = [(family, kind) for family in FAMILIES for kind in ("lora", "rslora")]
WIDER = [f"{LORA}.dim=17"]
"""One more row than vLLM takes unless it is told otherwise."""


def trained(folder: Path, family: str, data: Path, settings: list[str]) -> Path:
    """The exported model, with its adapters, of a short training; its base lies beside it."""
    base = save_tiny_model(folder / "base", family)
    assert main(arguments(base, data, folder, *ADAPTERS, *settings, "sft.max_num_steps=3")) == 0
    return export(Export(training_folder=folder, output=folder / "final_hf_model"))


@pytest.fixture(scope="module")
def python() -> str:
    """That of vLLM."""
    named = os.environ.get("VLLM_PYTHON")
    if not named:
        pytest.skip("no VLLM_PYTHON says which Python has vLLM: see CONTRIBUTING.md")
    return named


@pytest.fixture(scope="module")
def models(python, tmp_path_factory, chat_data):
    """Exported models by family and kind of adapters."""
    wanted = {(family, kind): KINDS[kind] for family, kind in READ}
    wanted |= {("llama", "dora"): KINDS["dora"], ("llama", "wide"): WIDER}
    return {
        (family, kind): trained(tmp_path_factory.mktemp(f"{family}-{kind}"), family, chat_data, settings)
        for (family, kind), settings in wanted.items()
    }


@pytest.fixture(scope="module")
def folders(python, models, tmp_path_factory):
    """Their adapters, and some with faults, each read by vLLM."""
    made = {key: shutil.copytree(model / "adapter", model.parent / "read") for key, model in models.items()}
    for fault, change in (("renamed", renamed), ("rescaled", rescaled)):
        copy = shutil.copytree(models["llama", "lora"] / "adapter", tmp_path_factory.mktemp(fault) / "adapter")
        change(copy)
        made["llama", fault] = copy
    script = Path(__file__).with_name("adapters_in_vllm.py")
    argv = [python, str(script), *(f"{folder}={family}" for (family, _), folder in made.items())]
    # Without our package and packages: it is theirs alone that reads.
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    said = subprocess.run(argv, cwd=tmp_path_factory.mktemp("vllm"), env=alone, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return made


def renamed(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    names = {name: name.replace("q_proj", "query_proj") for name in tensors}
    save_file({names[name]: tensor for name, tensor in tensors.items()}, folder / "adapter_model.safetensors")


def rescaled(folder: Path) -> None:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] * 1.05}))


def told(folder: Path) -> dict:
    return json.loads((folder / "vllm.json").read_text())


def beside_what_was_merged(folder: Path, model: Path) -> dict[str, float]:
    """Of what vLLM would add to each weight, the relative difference from what the export added, by module."""
    merged, base = (load_file(place / "model.safetensors") for place in (model, model.parent / "base"))
    changed = {name.removesuffix(".weight") for name, value in merged.items() if not torch.equal(value, base[name])}
    read, modules = load_file(folder / "vllm.safetensors"), told(folder)["modules"]
    assert changed == modules.keys() and changed
    differences = {}
    for name, facts in modules.items():
        added = (merged[f"{name}.weight"] - base[f"{name}.weight"]).double()
        theirs = facts["scale"] * read[f"{name}.lora_b"].double() @ read[f"{name}.lora_a"].double()
        assert facts["rank"] == len(read[f"{name}.lora_a"])
        differences[name] = float((theirs - added).norm() / added.norm())
    return differences


@pytest.mark.parametrize(("family", "kind"), READ)
def test_vllm_reads_what_was_merged(folders, models, family, kind):
    folder, model = folders[family, kind], models[family, kind]
    modules = told(folder)["modules"]
    assert {(facts["rank"], facts["scale"]) for facts in modules.values()} == {
        (8, 32 / 8 if kind == "lora" else 32 / math.sqrt(8))
    }
    # Adapters on part of the model have other names for what has them than those on all of it.
    assert len(modules) == (14 if kind == "lora" else 5)
    ours = load_file(folder / "adapter_model.safetensors")
    read = load_file(folder / "vllm.safetensors")
    capital = {".lora_a": ".lora_A", ".lora_b": ".lora_B"}
    names = {name: f"base_model.model.{name[:-7]}{capital[name[-7:]]}.weight" for name in read}
    assert set(names.values()) == ours.keys()
    assert all(torch.equal(value, ours[names[name]]) for name, value in read.items())
    # Rounding of float32.
    assert max(beside_what_was_merged(folder, model).values()) < 1e-6


def test_a_wrong_scale_would_be_noticed(folders, models):
    assert min(beside_what_was_merged(folders["llama", "rescaled"], models["llama", "lora"]).values()) > 0.04


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("renamed", "received ['model.layers.0.self_attn.query_proj'"),
        ("dora", "does not yet support DoRA"),
        ("wide", "rank 17 is greater than max_lora_rank 16"),
    ],
)
def test_vllm_refuses_what_it_cannot_serve(folders, kind, why):
    assert why in told(folders["llama", kind])["refused"]
