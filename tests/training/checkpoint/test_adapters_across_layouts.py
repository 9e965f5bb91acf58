"""Adapters that one layout of ranks saved, any other goes on with, bit for bit."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch

from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.distributed import World
from tests.training.checkpoint.across_layouts import SHAPES, resumed, saved, streamed
from tests.training.checkpoint.test_across_layouts import different
from tests.training.exhaustive import mostly_exhaustive
from tests.training.tiny import save_tiny_model

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
DORA = AdapterSpec(dim=3, alpha=6, decomposed=True)
"""Three rows of A for two ranks: shards of theirs are not of one size."""
MIXED = Layout(shard=2, tensor=2, sequence_parallel=True)
MIXTURE = Layout(shard=4, expert=2)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mixed(four_ranks, tmp_path_factory):
    """Folder and state of a training on two times two ranks, which share layers."""
    folder = tmp_path_factory.mktemp("mixed") / "checkpoints"
    return folder, four_ranks(saved, layout=MIXED, folder=folder, adapters=DORA)[0]


@pytest.fixture(scope="module")
def mixture(four_ranks, tmp_path_factory):
    """The same of ranks that share experts."""
    folder = tmp_path_factory.mktemp("mixture") / "checkpoints"
    return folder, four_ranks(saved, layout=MIXTURE, folder=folder, family="qwen3_moe", adapters=DORA)[0]


def resume(request, folder, layout, family="qwen3"):
    case = {"layout": layout, "folder": folder, "family": family, "adapters": DORA}
    if layout.ranks == 1:
        return resumed(ALONE, **case)
    return request.getfixturevalue("two_ranks" if layout.ranks == 2 else "four_ranks")(resumed, **case)[0]


def check(found, reference):
    assert any("average of" in name and "lora_A" in name for name in reference["state"])
    assert different(found["state"], reference["state"]) == []
    assert found["next"] == pytest.approx(reference["next"], rel=1e-6)


ANY = [MIXED, Layout(tensor=2), Layout(), Layout(shard=2), Layout(context=2, tensor=2), Layout(replicate=2, tensor=2)]


@pytest.mark.parametrize("layout", mostly_exhaustive(ANY, [MIXED, Layout(), Layout(shard=2)]), ids=str)
def test_shared_adapters_are_read_on_any_layout(request, tmp_path, mixed, layout):
    folder, reference = mixed

    check(resume(request, shutil.copytree(folder, tmp_path / "own"), layout), reference)


@pytest.mark.parametrize("layout", [Layout(), Layout(context=2, expert=2)], ids=str)
def test_adapters_of_shared_experts_are_read_on_any_layout(request, tmp_path, mixture, layout):
    folder, reference = mixture

    check(resume(request, shutil.copytree(folder, tmp_path / "own"), layout, "qwen3_moe"), reference)


@pytest.mark.parametrize("layout", [MIXED, Layout(tensor=2)], ids=str)
def test_adapters_that_one_process_saved_are_shared_later(request, tmp_path, layout):
    reference = saved(ALONE, layout=Layout(), folder=tmp_path / "own", adapters=DORA)

    check(resume(request, tmp_path / "own", layout), reference)


def test_the_comparison_sees_one_changed_value(mixed):
    _, reference = mixed
    changed = {name: value.clone() for name, value in reference["state"].items()}
    changed["model.layers.1.mlp.down_proj.lora_A.weight"][2, 5] += 1e-6
    assert different(changed, reference["state"]) == ["model.layers.1.mlp.down_proj.lora_A.weight"]


def test_each_rank_reads_its_part_of_the_base_model_below_adapters(four_ranks, tmp_path):
    folder = save_tiny_model(tmp_path / "base", "qwen3", seed=7, **SHAPES["qwen3"])
    lora = replace(DORA, decomposed=False)
    expected = streamed(ALONE, layout=Layout(), folder=folder, adapters=lora)

    assert any("lora_A" in name for name in expected)
    assert all(
        different(each, expected) == [] for each in four_ranks(streamed, layout=MIXED, folder=folder, adapters=lora)
    )
