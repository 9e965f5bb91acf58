"""What one layout of ranks saved, any other goes on from, bit for bit; and exports are the same."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.distributed import World
from tests.training.checkpoint.across_layouts import SHAPE, SHAPES, resumed, saved, streamed
from tests.training.exhaustive import mostly_exhaustive
from tests.training.tiny import save_tiny_model, tiny_model

ALONE = World(rank=0, size=1, device=torch.device("cpu"))
MIXED = Layout(shard=2, tensor=2, sequence_parallel=True)
SHARDED = Layout(shard=2)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mixed(four_ranks, tmp_path_factory):
    """Folder and state of a training on two times two ranks."""
    folder = tmp_path_factory.mktemp("mixed") / "checkpoints"
    return folder, four_ranks(saved, layout=MIXED, folder=folder)[0]


@pytest.fixture(scope="module")
def sharded(two_ranks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded") / "checkpoints"
    return folder, two_ranks(saved, layout=SHARDED, folder=folder)[0]


def different(one, other):
    assert one.keys() == other.keys()
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


ANY = [
    MIXED,
    Layout(shard=4),
    Layout(replicate=2, tensor=2),
    Layout(shard=2, context=2),
    Layout(context=2, tensor=2),
    SHARDED,
    Layout(tensor=2),
    Layout(context=2),
    Layout(),
]


@pytest.mark.parametrize("layout", mostly_exhaustive(ANY, [MIXED, ANY[4], SHARDED, Layout()]), ids=str)
def test_shards_of_shared_layers_are_read_on_any_layout(request, tmp_path, mixed, layout):
    folder, reference = mixed
    shutil.copytree(folder, tmp_path / "own")

    if layout.ranks == 1:
        found = resumed(ALONE, layout=layout, folder=tmp_path / "own")
    else:
        ranks = request.getfixturevalue("two_ranks" if layout.ranks == 2 else "four_ranks")
        found = ranks(resumed, layout=layout, folder=tmp_path / "own")[0]

    assert different(found["state"], reference["state"]) == []
    assert found["next"] == pytest.approx(reference["next"], rel=1e-6)
    # On the layout that saved it the same order of sums makes the same bits.
    assert found["next"] == reference["next"] or layout != MIXED


def test_and_back_from_shards_of_whole_layers(four_ranks, tmp_path, sharded):
    folder, reference = sharded
    shutil.copytree(folder, tmp_path / "own")

    found = four_ranks(resumed, layout=MIXED, folder=tmp_path / "own")[0]

    assert different(found["state"], reference["state"]) == []
    assert found["next"] == pytest.approx(reference["next"], rel=1e-6)


@pytest.mark.parametrize("layout", mostly_exhaustive([SHARDED, Layout(tensor=2), Layout()], [SHARDED]), ids=str)
def test_rows_of_fused_products_are_those_of_the_whole_model(request, four_ranks, tmp_path, layout):
    case = {"folder": tmp_path / "own", "family": "phi3"}
    reference = four_ranks(saved, layout=MIXED, **case)[0]

    ranks = request.getfixturevalue("two_ranks") if layout.ranks == 2 else lambda call, **rest: [call(ALONE, **rest)]
    found = ranks(resumed, layout=layout, **case)[0]

    assert different(found["state"], reference["state"]) == []
    assert found["next"] == pytest.approx(reference["next"], rel=1e-6)


@pytest.fixture(scope="module")
def mixture(four_ranks, tmp_path_factory):
    """Folder and state of a training whose ranks share experts by twos."""
    folder = tmp_path_factory.mktemp("mixture") / "checkpoints"
    layout = Layout(shard=4, expert=2)
    return folder, four_ranks(saved, layout=layout, folder=folder, family="qwen3_moe")[0]


EXPERTS = [
    Layout(shard=4),
    Layout(replicate=2, shard=2, expert=2),
    MIXED,
    Layout(shard=2, expert=2),
    Layout(tensor=2),
    Layout(context=2),
    Layout(),
]


@pytest.mark.parametrize("layout", mostly_exhaustive(EXPERTS, [MIXED, EXPERTS[3], Layout()]), ids=str)
def test_shared_experts_are_read_on_any_layout(request, tmp_path, mixture, layout):
    folder, reference = mixture
    shutil.copytree(folder, tmp_path / "own")
    case = {"layout": layout, "folder": tmp_path / "own", "family": "qwen3_moe"}

    if layout.ranks == 1:
        found = resumed(ALONE, **case)
    else:
        ranks = request.getfixturevalue("two_ranks" if layout.ranks == 2 else "four_ranks")
        found = ranks(resumed, **case)[0]

    assert different(found["state"], reference["state"]) == []
    assert found["next"] == pytest.approx(reference["next"], rel=1e-6)


@pytest.mark.parametrize("layout", mostly_exhaustive([MIXED, EXPERTS[3], Layout()], [EXPERTS[3]]), ids=str)
def test_experts_that_ranks_share_in_both_ways_are_read_on_any_layout(request, four_ranks, tmp_path, layout):
    case = {"folder": tmp_path / "own", "family": "gpt_oss"}
    reference = four_ranks(saved, layout=replace(MIXED, expert=2), **case)[0]

    ranks = {1: lambda call, **rest: [call(ALONE, **rest)], 2: request.getfixturevalue("two_ranks"), 4: four_ranks}
    found = ranks[layout.ranks](resumed, layout=layout, **case)[0]

    assert different(found["state"], reference["state"]) == []
    assert found["next"] == pytest.approx(reference["next"], rel=1e-6)


def test_experts_that_one_process_saved_are_shared_later(two_ranks, tmp_path):
    reference = saved(ALONE, layout=Layout(), folder=tmp_path / "own", family="qwen3_moe")

    found = two_ranks(resumed, layout=Layout(shard=2, expert=2), folder=tmp_path / "own", family="qwen3_moe")[0]

    assert different(found["state"], reference["state"]) == []
    assert found["next"] == pytest.approx(reference["next"], rel=1e-6)


def test_the_comparison_sees_one_changed_value(mixed):
    _, reference = mixed
    changed = {name: value.clone() for name, value in reference["state"].items()}
    changed["model.norm.weight"][3] += 1e-6
    assert different(changed, reference["state"]) == ["model.norm.weight"]


def test_the_export_holds_the_very_weights_of_all_ranks(mixed, tmp_path):
    folder, reference = mixed
    model = AutoModelForCausalLM.from_pretrained(export(Export(training_folder=folder, output=tmp_path / "hf")))

    assert type(model).__name__ == "Qwen3ForCausalLM"
    exported = {name: value.detach() for name, value in model.named_parameters()}
    weights = {name: value for name, value in reference["state"].items() if " of " not in name}
    assert different(exported, weights) == []


def test_the_export_of_shared_experts_has_a_matrix_for_each(mixture, tmp_path):
    folder, reference = mixture
    exported = load_file(export(Export(training_folder=folder, output=tmp_path / "hf")) / "model.safetensors")

    model = tiny_model("qwen3_moe", **SHAPES["qwen3_moe"])
    model.load_state_dict({name: value for name, value in reference["state"].items() if " of " not in name})
    model.save_pretrained(tmp_path / "by_transformers")
    assert different(exported, load_file(tmp_path / "by_transformers" / "model.safetensors")) == []
    assert "model.layers.2.mlp.experts.5.up_proj.weight" in exported


@pytest.mark.parametrize(
    "layout",
    [Layout(shard=4, expert=2), Layout(shard=2, context=2, expert=4), replace(MIXED, expert=2), MIXED],
    ids=str,
)
def test_each_rank_reads_its_experts_of_the_base_model(four_ranks, tmp_path, layout):
    folder = save_tiny_model(tmp_path / "base", "qwen3_moe", seed=7, num_experts=8)
    expected = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters(remove_duplicate=False))

    found = four_ranks(streamed, layout=layout, folder=folder)

    assert all(different(each, expected) == [] for each in found)


@pytest.mark.parametrize(
    ("family", "layout"), [("qwen3", MIXED), ("qwen3", Layout(tensor=4)), ("phi3", MIXED)], ids=str
)
def test_each_rank_reads_its_part_of_the_base_model(four_ranks, tmp_path, family, layout):
    folder = save_tiny_model(tmp_path / "base", family, seed=7, **{**SHAPE, "vocab_size": 264})
    expected = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters(remove_duplicate=False))

    found = four_ranks(streamed, layout=layout, folder=folder)

    assert all(different(each, expected) == [] for each in found)
