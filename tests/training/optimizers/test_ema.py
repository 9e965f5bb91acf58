"""The moving average of the weights: its numbers, on several ranks, through a checkpoint, and as an exported model."""

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import AutoModelForCausalLM

from skills_pipe.errors import CheckpointError
from skills_pipe.training.backends.fsdp.backend import FsdpBackend
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.sft import main
from tests.training.backends.scenario import BATCH, PACKED, STEPS, dataset, whole
from tests.training.sft_arguments import arguments
from tests.training.tiny import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

DECAY = 0.7
ALONE = World(rank=0, size=1, device=torch.device("cpu"))
SETTINGS = FsdpSettings(optimizer=ObjectConfig(name="torch.optim.AdamW", kwargs={"lr": 1e-2}), average_decay=DECAY)


def averaged(world, *, after_step=lambda model: None):
    """The average after a few steps, whole."""
    backend, data = FsdpBackend(tiny_model(), SETTINGS, world), dataset()
    after_step(backend.trainee.model)
    for step in range(STEPS):
        batch = split_batch(data, range(step * BATCH, (step + 1) * BATCH), PACKED, world.rank, world.size)
        backend.train_step(batch.microbatches, targets=batch.global_targets)
        after_step(backend.trainee.model)
    return {name: whole(value) for name, value in backend.trainee.average.state().items()}


def test_it_is_that_of_torch_bit_for_bit():
    oracle = None

    def follow(model):
        nonlocal oracle
        oracle = oracle or AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
        oracle.update_parameters(model)

    ours = averaged(ALONE, after_step=follow)
    theirs = dict(oracle.module.named_parameters())

    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    assert [name for name, value in tiny_model().state_dict().items() if torch.equal(ours[name], value)] == []


def test_ranks_average_their_shards(two_ranks):
    alone, together = averaged(ALONE), two_ranks(averaged)[0]

    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-5, atol=1e-6)


def test_a_step_that_changes_nothing_does_not_move_it():
    backend, data = FsdpBackend(tiny_model(), SETTINGS, ALONE), dataset()
    before = {name: value.clone() for name, value in backend.trainee.average.state().items()}
    batch = split_batch(data, range(BATCH), PACKED, 0, 1)
    result = backend.train_step(batch.microbatches, targets=batch.global_targets, judge=lambda loss, norm: "no")

    assert (result.updated, result.passed_over) == (False, "no")
    after = backend.trainee.average.state()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(value, after[name]) for name, value in backend.trainee.model.state_dict().items())


@pytest.fixture(scope="module")
def trained(tiny_model_folder, chat_data, tmp_path_factory):
    output = tmp_path_factory.mktemp("ema")
    given = arguments(tiny_model_folder, chat_data, output, f"sft.ema_decay={DECAY}", "sft.max_num_steps=4")
    assert main(given) == 0
    return output


def exported(folder, output, **wanted):
    path = export(Export(training_folder=folder, output=output, dtype="float32", **wanted))
    return AutoModelForCausalLM.from_pretrained(path).state_dict()


def test_a_resumed_run_has_the_same_average(trained, tiny_model_folder, chat_data, tmp_path):
    given = arguments(tiny_model_folder, chat_data, tmp_path / "cut", f"sft.ema_decay={DECAY}", "sft.max_num_steps=4")
    assert main([*given, "checkpointing.stop_after_steps=2"]) == 75
    assert main(given) == 0

    ours = exported(tmp_path / "cut", tmp_path / "a", ema=True)
    theirs = exported(trained, tmp_path / "b", ema=True)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
    plain = exported(trained, tmp_path / "c")
    assert [name for name in ours if torch.equal(ours[name], plain[name])] == []


def test_a_run_that_begins_to_average_later_says_so(tiny_model_folder, chat_data, tmp_path, capsys):
    given = arguments(tiny_model_folder, chat_data, tmp_path, "sft.max_num_steps=2")
    assert main([*given, "checkpointing.stop_after_steps=1"]) == 75
    assert main([*given, "sft.ema_decay=0.5"]) == 0
    assert "step_1 has no average of the weights: it starts from the weights of this step" in capsys.readouterr().out


def test_without_an_average_there_is_none_to_export(tiny_model_folder, chat_data, tmp_path):
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, "sft.max_num_steps=1")) == 0
    with pytest.raises(CheckpointError, match=r"step_1 has no average of the weights.*sft\.ema_decay"):
        exported(tmp_path, tmp_path / "model", ema=True)
    assert not (tmp_path / "model").exists()
