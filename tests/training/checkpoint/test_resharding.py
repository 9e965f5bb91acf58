import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from skills_pipe.training.checkpoint.export import Export, export
from tests.training.checkpoint.runs import new_manager, new_trainee

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow


def torchrun(processes, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += ["-m", "tests.training.checkpoint.sharded", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def saved_by(processes, folder, *options):
    ended = torchrun(processes, "save", folder, *options)
    assert ended.returncode == 0, ended.stderr
    return torch.load(folder.parent / "reference.pt")


@pytest.fixture(scope="module")
def saved_by_two(tmp_path_factory):
    """A run that two ranks saved; copy it before changing it."""
    folder = tmp_path_factory.mktemp("two") / "checkpoints"
    saved_by(2, folder)
    return folder.parent


@pytest.mark.parametrize("tied", [False, True])
def test_two_ranks_save_and_one_process_without_a_group_resumes_bit_for_bit(tmp_path, tied):
    folder = tmp_path / "checkpoints"
    reference = saved_by(2, folder, *(["tied"] if tied else []))
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


def test_two_ranks_resume_what_two_ranks_saved_with_their_random_numbers(saved_by_two, tmp_path):
    shutil.copytree(saved_by_two, tmp_path, dirs_exist_ok=True)
    ended = torchrun(2, "load", tmp_path / "checkpoints")
    assert ended.returncode == 0, ended.stderr
    assert "random numbers" not in ended.stdout


def test_two_ranks_resume_what_one_rank_saved(tmp_path):
    saved_by(1, tmp_path / "checkpoints")
    ended = torchrun(2, "load", tmp_path / "checkpoints")
    assert ended.returncode == 0, ended.stderr
    assert "saved by 1 ranks, now 2" in ended.stdout


def test_the_comparison_sees_one_changed_value(saved_by_two, tmp_path):
    shutil.copytree(saved_by_two, tmp_path, dirs_exist_ok=True)
    reference = torch.load(tmp_path / "reference.pt")
    reference["optimizer"]["state.model.norm.weight.exp_avg"][3] += 1e-3
    torch.save(reference, tmp_path / "reference.pt")
    ended = torchrun(2, "load", tmp_path / "checkpoints")
    assert ended.returncode != 0
    assert "differs: ['optimizer: state.model.norm.weight.exp_avg']" in ended.stderr


def test_damage_found_by_one_rank_stops_all_ranks_with_the_same_line(saved_by_two, tmp_path):
    shutil.copytree(saved_by_two, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / "step_3" / "rng" / "rank_1.pt").write_bytes(b"")
    ended = torchrun(2, "load", tmp_path / "checkpoints")
    assert ended.returncode != 0
    assert ended.stderr.count("rank_1.pt: 0 bytes,") >= 2
