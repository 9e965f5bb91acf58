"""Saves in the background: the same bytes as others, told when they are on disk, and their failures too."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint import manager as managers
from skills_pipe.training.checkpoint import tensors
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.checkpoint.retention import Retention
from skills_pipe.training.checkpoint.snapshot import HostBuffers, Snapshot
from skills_pipe.training.distributed import World
from skills_pipe.training.optimizers.ema import WeightAverage
from tests.training.checkpoint.runs import (
    RUN,
    equal_models,
    info_at,
    new_manager,
    new_trainee,
    position_at,
    save_steps,
    train,
    with_optimizer,
)
from tests.training.checkpoint.sharded import sharded_trainee
from tests.training.checkpoint.test_damage import files_no_larger_than


def background_manager(folder, **settings) -> CheckpointManager:
    manager = CheckpointManager(folder, run=RUN, in_background=True, **settings)
    manager.start()
    return manager


@pytest.fixture
def gate(monkeypatch):
    """Writing waits until this is set, so that training is ahead of it for sure."""
    opened, write = threading.Event(), managers.write_step

    def waiting(*arguments, **settings):
        if threading.current_thread() is not threading.main_thread():
            assert opened.wait(60)
        return write(*arguments, **settings)

    monkeypatch.setattr(managers, "write_step", waiting)
    yield opened
    opened.set()


def test_what_is_written_is_the_state_at_the_save_whatever_is_trained_after_it(tmp_path, gate):
    torch.manual_seed(0)
    trainee = new_trainee()
    train(trainee, 4)
    manager = background_manager(tmp_path)
    assert manager.save(trainee, info_at(4), position_at(4)) == ()
    losses = train(trainee, 6)
    assert manager.poll(trainee) == ()
    assert not (tmp_path / "step_4").exists()
    gate.set()
    manager.close()

    torch.manual_seed(999)
    resumed = new_trainee(seed=7)
    assert new_manager(tmp_path).resume(resumed).info == info_at(4)
    assert train(resumed, 6) == losses
    assert equal_models(resumed.model, trainee.model)
    assert resumed.scheduler.get_last_lr() == trainee.scheduler.get_last_lr()


def test_without_the_copy_later_steps_would_be_in_the_file(tmp_path, gate, monkeypatch):
    monkeypatch.setattr(HostBuffers, "hold", lambda self, snapshot: snapshot)
    trainee = new_trainee()
    before = save_steps(tmp_path / "reference", 1, trainee=trainee).model.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    manager = background_manager(tmp_path / "live")
    manager.save(trainee, info_at(1), position_at(1))
    train(trainee, 1)
    gate.set()
    manager.close()
    resumed = new_trainee(seed=7)
    new_manager(tmp_path / "live").resume(resumed)
    assert any(not torch.equal(value, before[name]) for name, value in resumed.model.state_dict().items())


def test_the_files_are_those_of_a_save_that_is_waited_for(tmp_path):
    trainee = new_trainee()
    train(trainee, 2)
    waited, background = new_manager(tmp_path / "waited"), background_manager(tmp_path / "background")
    waited.save(trainee, info_at(2), position_at(2))
    background.save(trainee, info_at(2), position_at(2))
    background.close()
    one, other = (dict(manifests.read(tmp_path / name / "step_2").files) for name in ("waited", "background"))
    for part in ("weights", "optimizer"):
        # It holds an id of its save.
        assert one.pop(f"policy/{part}/.metadata") != other.pop(f"policy/{part}/.metadata")
    assert one == other
    assert "policy/weights/__0_0.distcp" in one


def test_a_finished_save_is_told_once(tmp_path, gate):
    trainee, manager = new_trainee(), background_manager(tmp_path)
    train(trainee, 1)
    manager.save(trainee, info_at(1), position_at(1))
    assert manager.poll(trainee) == ()
    gate.set()
    told = ()
    while not told:
        told = manager.poll(trainee)
    assert told == (1,)
    assert manager.poll(trainee) == ()
    assert manager.longest_save_seconds > 0
    manager.close()


def test_the_next_save_waits_for_the_one_before_and_a_last_one_for_itself(tmp_path):
    trainee, manager = new_trainee(), background_manager(tmp_path)
    train(trainee, 1)
    assert manager.save(trainee, info_at(1), position_at(1)) == ()
    assert manager.save(trainee, info_at(2), position_at(2)) == (1,)
    assert manager.save(trainee, info_at(3), position_at(3), wait=True) == (2, 3)
    assert sorted(path.name for path in tmp_path.glob("step_*")) == ["step_1", "step_2", "step_3"]
    manager.close()


def test_memory_for_copies_is_taken_once(tmp_path):
    trainee, buffers = new_trainee(), HostBuffers()
    train(trainee, 1)
    snapshot = Snapshot.of(trainee, RUN, info_at(1), position_at(1))
    buffers.reserve(snapshot.states)
    size, places = buffers.size, {buffer.data_ptr() for buffer in buffers._kept.values()}
    parameters = sum(parameter.nbytes for parameter in trainee.model.parameters())
    assert 3 * parameters <= size < 3 * parameters + 1000
    for _ in range(2):
        buffers.hold(snapshot)
    assert buffers.size == size
    assert {buffer.data_ptr() for buffer in buffers._kept.values()} == places


def test_a_full_disk_is_told_at_the_next_step_and_the_earlier_checkpoint_stays(tmp_path):
    trainee = save_steps(tmp_path, 1)
    manager = background_manager(tmp_path)
    train(trainee, 1)
    with files_no_larger_than(10_000):
        manager.save(trainee, info_at(2), position_at(2))
        with pytest.raises(CheckpointError, match=r"File too large.*earlier checkpoints are untouched"):
            while manager.poll(trainee) == ():
                pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [".owner-training.json", "step_1"]
    assert manager.save(trainee, info_at(2), position_at(2), wait=True) == (2,)
    manager.close()
    assert new_manager(tmp_path).resume(new_trainee()).info.total_steps == 2


def test_a_failure_nobody_asked_for_is_told_at_the_end(tmp_path):
    trainee, manager = new_trainee(), background_manager(tmp_path)
    train(trainee, 1)
    with files_no_larger_than(10_000), pytest.raises(CheckpointError, match="File too large"):
        manager.save(trainee, info_at(1), position_at(1))
        manager.close()
    assert list(tmp_path.iterdir()) == []


def test_steps_that_the_rule_lets_go_are_deleted_in_the_background_too(tmp_path):
    trainee = new_trainee()
    manager = background_manager(tmp_path, retention=Retention(keep_top_k=1))
    train(trainee, 1)
    for step in (1, 2, 3):
        manager.save(trainee, info_at(step), position_at(step))
    manager.close()
    assert [path.name for path in tmp_path.glob("step_*")] == ["step_3"]


def saved_beside_training(world: World, *, folder: str) -> bool:
    """Each rank saves in the background and trains on at once, with collectives of its own all the time."""
    trainee = sharded_trainee(seed=0, tied=True)
    torch.manual_seed(world.rank)
    train(trainee, 2)
    manager = background_manager(Path(folder))
    for step in (2, 3):
        manager.save(trainee, info_at(step), position_at(step))
        state = {name: value.full_tensor().clone() for name, value in trainee.model.state_dict().items()}
        train(trainee, 3)
    manager.close()
    # The next job is another process; here the next manager must not meet the owner record of this one.
    resumed = sharded_trainee(seed=5, tied=True)
    again = new_manager(Path(folder))
    assert again.resume(resumed).warnings == ()
    again.close()
    found = {name: value.full_tensor() for name, value in resumed.model.state_dict().items()}
    return all(torch.equal(value, state[name]) for name, value in found.items())


def test_ranks_save_in_the_background_while_they_train(two_ranks, tmp_path):
    assert two_ranks(saved_beside_training, folder=str(tmp_path)) == [True, True]


def failing_on_one_rank(world: World, *, folder: str) -> str:
    trainee = sharded_trainee(seed=0, tied=False)
    train(trainee, 1)
    manager = background_manager(Path(folder))
    with files_no_larger_than(10_000 if world.rank == 1 else 2**40):
        manager.save(trainee, info_at(1), position_at(1))
        steps = 0
        try:
            while not manager.poll(trainee):
                train(trainee, 1)
                steps += 1
        except CheckpointError as error:
            return f"{world.sum(steps) == steps * world.size}: {error}"
        finally:
            manager.close()
    return "nothing was told"


def test_a_failure_of_one_rank_ends_all_at_the_same_step(two_ranks, tmp_path):
    one, other = two_ranks(failing_on_one_rank, folder=str(tmp_path))
    assert one.startswith("True: rank 1 could not write the checkpoint: File too large")
    assert other == one
    assert list(tmp_path.iterdir()) == []


def test_the_average_is_copied_too(tmp_path, gate):
    trainee = new_trainee()
    trainee = replace(trainee, average=WeightAverage(trainee.model, 0.5))
    train(trainee, 1)
    trainee.average.update()
    kept = {name: value.clone() for name, value in trainee.average.state().items()}
    manager = background_manager(tmp_path)
    manager.save(trainee, info_at(1), position_at(1))
    train(trainee, 1)
    trainee.average.update()
    gate.set()
    manager.close()
    resumed = with_optimizer(new_trainee(seed=3).model)
    resumed = replace(resumed, average=WeightAverage(resumed.model, 0.5))
    new_manager(tmp_path).resume(resumed)
    assert all(torch.equal(value, kept[name]) for name, value in resumed.average.state().items())


def test_nothing_is_left_running(tmp_path):
    trainee, manager = new_trainee(), background_manager(tmp_path)
    train(trainee, 1)
    manager.save(trainee, info_at(1), position_at(1))
    manager.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("checkpoint")] == []
    assert [path.name for path in tmp_path.iterdir()] == ["step_1"]


@pytest.mark.parametrize("looked", [False, True])
def test_memory_that_is_asked_for_before_the_first_update_changes_no_update(tmp_path, looked):
    """As when the first steps of a run are passed over: the optimizer has no state, and must not get one by this."""
    torch.manual_seed(0)
    expected, trainee = new_trainee(), new_trainee()
    if looked:
        manager = background_manager(tmp_path)
        manager.poll(trainee)
        manager.save(trainee, info_at(1), position_at(1))
        manager.close()
        resumed = new_trainee(seed=7)
        point = new_manager(tmp_path).resume(resumed)
        assert point.warnings == ("step_1 has no optimizer state: the optimizer starts fresh",)
        trainees = (trainee, resumed)
    else:
        # What torch does to an optimizer that is asked for its state.
        tensors.optimizer_state(trainee)
        trainees = (trainee,)
    for one in (expected, *trainees):
        torch.manual_seed(1)
        train(one, 2)

    assert [equal_models(one.model, expected.model) for one in trainees] == [looked] * len(trainees)
