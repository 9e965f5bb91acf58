import copy
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from skills_pipe.training.checkpoint.export import Export, export
from tests.training.checkpoint.runs import new_manager, new_trainee
from tests.training.checkpoint.sharded import differences, load, save
from tests.training.ranks.pool import RankFailed, Ranks


@pytest.fixture(scope="module")
def one_rank(tmp_path_factory):
    """A process group of one."""
    rank = Ranks(1, tmp_path_factory.mktemp("one_rank"))
    yield rank
    rank.close()


@pytest.fixture(scope="module")
def saved_by_two(two_ranks, tmp_path_factory):
    """Folder and state of a run that two ranks saved; copy it before changing it."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    return folder, two_ranks(save, folder=folder)[0]


@pytest.mark.parametrize("tied", [False, True])
def test_two_ranks_save_and_one_process_without_a_group_resumes_bit_for_bit(two_ranks, tmp_path, tied):
    folder = tmp_path / "checkpoints"
    reference = two_ranks(save, folder=folder, tied=tied)[0]
    names = {path.name for path in (folder / "step_3" / "policy" / "weights").iterdir()}
    assert names == {".metadata", "__0_0.distcp", "__1_0.distcp"}
    assert {path.name for path in (folder / "step_3" / "rng").iterdir()} == {"rank_0.pt", "rank_1.pt"}

    resumed = new_trainee(seed=5, tied=tied)
    point = new_manager(folder).resume(resumed)
    assert point.warnings == (
        "saved by 2 ranks, now 1: weights, optimizer and data position are the same, "
        "random numbers start anew from seed + step",
    )
    state = resumed.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in reference["model"].items())
    by_name = dict(resumed.model.named_parameters())
    for name, parameter in by_name.items():
        for moment in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(
                resumed.optimizer.state[parameter][moment], reference["optimizer"][f"state.{name}.{moment}"]
            )

    exported = export(Export(training_folder=folder, output=tmp_path / "hf"))
    model = AutoModelForCausalLM.from_pretrained(exported)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in reference["model"].items())


def test_two_ranks_resume_what_two_ranks_saved_with_their_random_numbers(two_ranks, saved_by_two, tmp_path):
    saved, reference = saved_by_two
    shutil.copytree(saved, tmp_path / "checkpoints")
    (warnings, state), _ = two_ranks(load, folder=tmp_path / "checkpoints")
    assert warnings == ()
    assert differences(state, reference) == []


def test_two_ranks_resume_what_one_rank_saved(one_rank, two_ranks, tmp_path):
    (reference,) = one_rank(save, folder=tmp_path)
    (warnings, state), _ = two_ranks(load, folder=tmp_path)
    assert [warning.partition(":")[0] for warning in warnings] == ["saved by 1 ranks, now 2"]
    assert differences(state, reference) == []


def test_the_comparison_sees_one_changed_value(saved_by_two):
    _, reference = saved_by_two
    changed = copy.deepcopy(reference)
    changed["optimizer"]["state.model.norm.weight.exp_avg"][3] += 1e-3
    assert differences(changed, reference) == ["optimizer: state.model.norm.weight.exp_avg"]


def test_damage_found_by_one_rank_stops_all_ranks_with_the_same_line(two_ranks, saved_by_two, tmp_path):
    shutil.copytree(saved_by_two[0], tmp_path / "checkpoints")
    (tmp_path / "checkpoints" / "step_3" / "rng" / "rank_1.pt").write_bytes(b"")
    with pytest.raises(RankFailed) as failed:
        two_ranks(load, folder=tmp_path / "checkpoints")
    one, other = (line for line in str(failed.value).splitlines() if line.startswith("rank ") and " of 2: " in line)
    assert "rank_1.pt: 0 bytes," in one
    assert other == one.replace("rank 0 of 2", "rank 1 of 2")
