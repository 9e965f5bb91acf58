import resource
import shutil
from contextlib import contextmanager

import pytest

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.errors import CheckpointError
from tests.training.checkpoint.runs import (
    equal_models,
    info_at,
    new_manager,
    new_trainee,
    position_at,
    save_steps,
    train,
)

PARTS = (
    "policy/weights/__0_0.distcp",
    "policy/weights/.metadata",
    "policy/optimizer/__0_0.distcp",
    "rng/rank_0.pt",
    "training_info.json",
)


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("part", PARTS)
def test_a_flipped_bit_is_found_before_anything_is_loaded(tmp_path, part):
    save_steps(tmp_path, 1, 2)
    flip_a_byte(tmp_path / "step_2" / part)
    fresh, untouched = new_trainee(seed=7), new_trainee(seed=7)
    with pytest.raises(CheckpointError) as caught:
        new_manager(tmp_path).resume(fresh)
    assert f"checkpoint step_2 is damaged: {tmp_path / 'step_2' / part}: the contents changed" in str(caught.value)
    assert f"or remove {tmp_path / 'step_2'} to go on from the checkpoint before it" in str(caught.value)
    assert equal_models(fresh.model, untouched.model)


def test_all_damaged_files_are_named_at_once(tmp_path):
    save_steps(tmp_path, 1)
    step = tmp_path / "step_1"
    flip_a_byte(step / PARTS[0])
    (step / "config.yaml").unlink()
    with open(step / "rng" / "rank_0.pt", "ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError) as caught:
        new_manager(tmp_path).resume(new_trainee())
    message = str(caught.value)
    assert "__0_0.distcp: the contents changed" in message
    assert "config.yaml: missing" in message
    assert "rank_0.pt: " in message and "bytes, " in message


def test_removing_the_damaged_step_goes_on_from_the_one_before(tmp_path):
    save_steps(tmp_path, 1, 2)
    flip_a_byte(tmp_path / "step_2" / PARTS[0])
    shutil.rmtree(tmp_path / "step_2")
    assert new_manager(tmp_path).resume(new_trainee()).info.total_steps == 1


@pytest.mark.parametrize("manifest", [None, "", '{"format": 1'])
def test_a_step_without_a_valid_manifest_is_passed_over_and_said(tmp_path, manifest):
    save_steps(tmp_path, 1, 2)
    path = tmp_path / "step_2" / "manifest.json"
    path.unlink() if manifest is None else path.write_text(manifest)
    point = new_manager(tmp_path).resume(new_trainee())
    assert point.info.total_steps == 1
    assert point.warnings == ("step_2 passed over: the save was not finished",)


@pytest.mark.parametrize("name", ["step_7-hf", "tmp_step_8", "step_", "hf_model_step_9", "step_10.bak"])
def test_folders_of_other_names_are_no_steps(tmp_path, name):
    save_steps(tmp_path, 1)
    shutil.copytree(tmp_path / "step_1", tmp_path / name)
    assert new_manager(tmp_path).resume(new_trainee()).info.total_steps == 1


@contextmanager
def files_no_larger_than(size):
    """A write beyond ``size`` fails as one on a full disk does, in the same place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 1_000, 10_000, 100_000, 300_000])
def test_a_full_disk_is_a_clear_line_and_the_earlier_checkpoint_stays(tmp_path, size):
    trainee = save_steps(tmp_path, 1)
    reference = new_trainee(seed=7)
    new_manager(tmp_path).resume(reference)
    manager = new_manager(tmp_path)
    train(trainee, 1)
    told = pytest.raises(CheckpointError, match=r"File too large.*earlier checkpoints are untouched")
    with told, files_no_larger_than(size):
        manager.save(trainee, info_at(2), position_at(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".owner-training.json", "step_1"]
    assert manifests.damage(tmp_path / "step_1", manifests.read(tmp_path / "step_1")) == []
    manager.save(trainee, info_at(2), position_at(2))
    assert new_manager(tmp_path).resume(new_trainee()).info.total_steps == 2
