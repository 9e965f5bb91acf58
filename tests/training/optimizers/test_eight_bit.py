"""An optimizer of torchao, by its import path: 8-bit states, on one rank and two, in checkpoints and out of them.

torchao lies in a folder of its own in the environment (see the Makefile), which only these cases look into.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.distributed.tensor import DTensor

from skills_pipe.errors import ConfigError
from skills_pipe.training.backends.fsdp.settings import FsdpSettings
from skills_pipe.training.config import ObjectConfig
from skills_pipe.training.data.batches import split_batch
from skills_pipe.training.distributed import World
from skills_pipe.training.optimizers.build import build_optimizer
from tests.training.backends.scenario import BATCH, PACKED, STEPS, dataset, make_backend, whole
from tests.training.checkpoint.runs import info_at, new_manager, position_at

pytestmark = pytest.mark.slow  # torch compiles

ASIDE = Path(sys.prefix, "aside")
ALONE = World(rank=0, size=1, device=torch.device("cpu"))
EIGHT_BIT, ADAMW, SGD = "torchao.optim.AdamW8bit", "torch.optim.AdamW", "torch.optim.SGD"
SIZES = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128}
"""Half of a matrix of the MLP has 4,096 values, from which on states have 8 bits."""


def trained(
    world: World, *, name: str = EIGHT_BIT, steps: int = STEPS, first: int = 0, folder: Path | None = None
) -> dict:
    """Train from step ``first`` on: from the checkpoint in ``folder``, or to the one that is left there."""
    # Also in ranks, which are processes of their own.
    if str(ASIDE) not in sys.path:
        sys.path.append(str(ASIDE))
    settings = FsdpSettings(optimizer=ObjectConfig(name=name, kwargs={"lr": 1e-3 if name != SGD else 1e-1}))
    backend = make_backend(settings, world, **SIZES)
    manager = new_manager(folder) if folder is not None else None
    if manager is not None and first:
        manager.resume(backend.trainee)
    found = {"resumed": states(backend.trainee.optimizer)}
    data, losses = dataset(), []
    for step in range(first, first + steps):
        chosen = range(step % STEPS * BATCH, (step % STEPS + 1) * BATCH)
        batch = split_batch(data, chosen, PACKED, world.rank, world.size)
        losses.append(backend.train_step(batch.microbatches, targets=batch.global_targets).loss)
    if manager is not None:
        if not first:
            manager.save(backend.trainee, info_at(steps), position_at(steps))
        manager.close()
    weights = {name: whole(value) for name, value in backend.trainee.model.state_dict().items()}
    return found | {
        "losses": losses,
        "weights": weights,
        "states": states(backend.trainee.optimizer),
        "bytes": sum(map(held, moments(backend.trainee.optimizer))),
        "eight_bit": sum(
            type(local(value)).__name__ == "OptimState8bit" for value in moments(backend.trainee.optimizer)
        ),
    }


def moments(optimizer) -> list[torch.Tensor]:
    return [state[key] for state in optimizer.state.values() for key in ("exp_avg", "exp_avg_sq") if key in state]


def states(optimizer) -> list[torch.Tensor]:
    """The moments as numbers, whole."""
    return [plain(value.full_tensor() if isinstance(value, DTensor) else value) for value in moments(optimizer)]


def plain(value: torch.Tensor) -> torch.Tensor:
    return value.dequantize() if hasattr(value, "dequantize") and hasattr(value, "codes") else value.clone()


def local(value: torch.Tensor) -> torch.Tensor:
    return value.to_local() if isinstance(value, DTensor) else value


def held(value: torch.Tensor) -> int:
    """Bytes on this rank."""
    value = local(value)
    parts = [value.codes, value.scale, value.qmap] if hasattr(value, "codes") else [value]
    return sum(part.nbytes for part in parts)


@pytest.fixture(scope="module")
def alone():
    return {name: trained(ALONE, name=name) for name in (EIGHT_BIT, ADAMW, SGD)}


def test_states_have_eight_bits_and_take_about_a_quarter(alone):
    """The small matrices of attention in this model and the norms keep 32."""
    # Two for each matrix of the MLP, embeddings and output.
    assert (alone[EIGHT_BIT]["eight_bit"], alone[ADAMW]["eight_bit"]) == (2 * (2 * 3 + 2), 0)
    assert 0.25 < alone[EIGHT_BIT]["bytes"] / alone[ADAMW]["bytes"] < 0.36


def test_losses_are_those_of_adamw_but_for_a_little(alone):
    found, expected, other = (torch.tensor(alone[name]["losses"][1:]) for name in (EIGHT_BIT, ADAMW, SGD))

    assert 0 < (found - expected).abs().max() < 1e-3
    assert (other - expected).abs().max() > 1.5e-3


def test_two_ranks_train_as_one_does(two_ranks, alone):
    found, other = two_ranks(trained)

    assert found["losses"] == other["losses"]
    assert found["losses"] == pytest.approx(alone[EIGHT_BIT]["losses"], abs=1e-4)
    assert found["eight_bit"] == alone[EIGHT_BIT]["eight_bit"]
    assert 0.4 < found["bytes"] / alone[EIGHT_BIT]["bytes"] < 0.6


def test_a_resumed_training_has_the_bits_of_one_that_was_not_interrupted(tmp_path, alone):
    trained(ALONE, steps=2, folder=tmp_path)
    found = trained(ALONE, first=2, steps=1, folder=tmp_path)

    expected = alone[EIGHT_BIT]["weights"]
    assert [name for name in expected if not torch.equal(found["weights"][name], expected[name])] == []
    without = trained(ALONE, first=2, steps=1)["weights"]
    assert not all(torch.equal(without[name], value) for name, value in expected.items())


def test_two_ranks_resume_what_they_saved_and_one_process_does(two_ranks, tmp_path):
    saved = two_ranks(trained, steps=2, folder=tmp_path)[0]
    together = two_ranks(trained, first=2, steps=1, folder=tmp_path)[0]
    apart = trained(ALONE, first=2, steps=1, folder=tmp_path)

    uninterrupted = two_ranks(trained)[0]
    assert together["losses"] == uninterrupted["losses"][2:]
    assert all(torch.equal(together["weights"][name], value) for name, value in uninterrupted["weights"].items())
    for resumed in (together, apart):
        assert len(saved["states"]) > 0
        assert all(torch.equal(*each) for each in zip(resumed["resumed"], saved["states"], strict=True))
    assert apart["losses"] == pytest.approx(uninterrupted["losses"][2:], abs=1e-4)


def test_without_torchao_there_is_one_clear_line(monkeypatch):
    class Missing:
        """Finds nothing of torchao, as if it was not installed."""

        def find_spec(self, name, *_):
            if name.partition(".")[0] == "torchao":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(ConfigError, match=r"torchao is not installed.*policy\.optimizer\.name.*pip install torchao"):
        build_optimizer([torch.nn.Parameter(torch.ones(3))], ObjectConfig(name=EIGHT_BIT, kwargs={}))
