"""Whole trainings with every way of making batches: the same steps, interrupted or not, on one rank or on two."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from skills_pipe.artifacts.names import ENV_DEADLINE, ENV_SAVE_NOW, ENV_VERDICT
from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.training.carry_out import carry_out
from skills_pipe.training.config import load_config
from skills_pipe.training.distributed import World
from skills_pipe.training.setup import build_run, load_parts
from skills_pipe.training.sft import main
from skills_pipe.training.signals import SignalListener
from tests.training.exhaustive import mostly_exhaustive
from tests.training.outputs import assert_equal_bits, logged, state
from tests.training.sft_arguments import arguments
from tests.training.tiny import chat_rows, save_tiny_model, write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

DOCUMENTS = 24
BATCH = 4
PER_EPOCH = DOCUMENTS // BATCH
STEPS = 8
ROW = 200

UNPACKED = "policy.sequence_packing.enabled=false"
WAYS = {
    "packed": [],
    "over the data set": [
        "policy.sequence_packing.scope=dataset",
        f"policy.sequence_packing.train_mb_tokens={ROW}",
        "policy.train_global_batch_size=2",
    ],
    "in random order": ["policy.sequence_packing.algorithm=first_fit_shuffle"],
    "unpacked": [UNPACKED, "policy.train_micro_batch_size=3"],
    "dynamic": [UNPACKED, "policy.dynamic_batching.enabled=true", "policy.dynamic_batching.train_mb_tokens=320"],
    "sorted": ["data.length_order=sorted"],
    "bucketed": ["data.length_order=bucketed"],
}
DIVIDED = ("in random order", "unpacked", "dynamic")
"""Ways that divide the documents of a step otherwise than the first one does, and do nothing else."""
OTHER_BATCHES = ("over the data set", "sorted", "bucketed")
RESUMED = ("dynamic", *OTHER_BATCHES)


@pytest.fixture(autouse=True)
def started_by_hand(monkeypatch):
    for name in (ENV_DEADLINE, ENV_SAVE_NOW, ENV_VERDICT):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("rows") / "chats.jsonl", chat_rows(DOCUMENTS))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("plain") / "model", num_hidden_layers=1)


@pytest.fixture(scope="module")
def dropout_model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("dropout") / "model", num_hidden_layers=1, attention_dropout=0.2)


def settings(model: Path, data: Path, output: Path, way: str, *extra: str) -> list[str]:
    run = [f"sft.max_num_steps={STEPS}", "checkpointing.save_period=1000", "policy.precision=float32"]
    return arguments(model, data, output, f"policy.train_global_batch_size={BATCH}", *run, *WAYS[way], *extra)


@pytest.fixture(scope="module")
def trained(model, data, tmp_path_factory):
    """Output of an uninterrupted training without dropout on one rank, by its way."""
    outputs: dict[str, Path] = {}

    def of(way: str) -> Path:
        if way not in outputs:
            output = tmp_path_factory.mktemp("trained")
            assert main(settings(model, data, output, way)) == 0
            outputs[way] = output
        return outputs[way]

    return of


def job(world: World, *, argv: list[str]) -> str:
    """One job of a training, on every rank of a world that exists; returns how it ended."""
    config = load_config(None, argv)
    parts = load_parts(config, world)
    verdict: Verdict = carry_out(build_run(config, parts, world, SignalListener()), parts)
    return verdict.outcome.value


# Interrupted


@pytest.mark.parametrize("way", RESUMED)
def test_a_training_in_three_jobs_has_the_bits_of_one(dropout_model, data, tmp_path, way):
    whole, parts = (settings(dropout_model, data, tmp_path / name, way) for name in ("whole", "parts"))
    assert main(whole) == 0
    # After 3 steps, and after 6, where an epoch of documents ends.
    assert [main([*parts, "checkpointing.stop_after_steps=3"]) for _ in range(3)] == [75, 75, 0]
    assert_equal_bits(state(tmp_path / "parts", STEPS), state(tmp_path / "whole", STEPS))
    assert logged(tmp_path / "parts", "train/loss") == logged(tmp_path / "whole", "train/loss")


def test_other_batches_after_an_interruption_are_seen_in_the_bits(model, data, tmp_path, trained):
    argv = settings(model, data, tmp_path, "bucketed")
    assert main([*argv, "checkpointing.stop_after_steps=3"]) == 75
    assert main([*argv, "data.shuffle=false", "checkpointing.on_change=continue"]) == 0
    with pytest.raises(AssertionError):
        assert_equal_bits(state(tmp_path, STEPS), state(trained("bucketed"), STEPS))


@pytest.mark.slow
@pytest.mark.parametrize("way", mostly_exhaustive(RESUMED, ["dynamic"]))
def test_two_ranks_in_three_jobs_have_the_bits_of_two_ranks_in_one(two_ranks, dropout_model, data, tmp_path, way):
    whole, parts = (settings(dropout_model, data, tmp_path / name, way) for name in ("whole", "parts"))
    assert two_ranks(job, argv=whole) == ["complete"] * 2
    for outcome in (Outcome.CONTINUE, Outcome.CONTINUE, Outcome.COMPLETE):
        assert two_ranks(job, argv=[*parts, "checkpointing.stop_after_steps=3"]) == [outcome.value] * 2
    assert_equal_bits(state(tmp_path / "parts", STEPS), state(tmp_path / "whole", STEPS))
    assert logged(tmp_path / "parts", "train/loss") == logged(tmp_path / "whole", "train/loss")


@pytest.mark.slow
@pytest.mark.parametrize("way", mostly_exhaustive(["packed", *RESUMED], ["packed", "bucketed"]))
def test_one_rank_two_ranks_and_one_rank_again_train_as_one_does(two_ranks, trained, model, data, tmp_path, way):
    argv = settings(model, data, tmp_path, way)
    assert main([*argv, "checkpointing.stop_after_steps=2"]) == 75
    assert two_ranks(job, argv=[*argv, "checkpointing.stop_after_steps=4"]) == ["continue"] * 2
    assert main(argv) == 0
    assert logged(tmp_path, "train/loss") == pytest.approx(logged(trained(way), "train/loss"), rel=1e-5)
    for name in ("train/global_valid_seqs", "train/global_valid_toks", "train/tokens"):
        assert logged(tmp_path, name) == logged(trained(way), name)


# What a step trains on


@pytest.mark.parametrize("way", DIVIDED)
def test_how_the_documents_of_a_step_are_divided_changes_no_loss(trained, way):
    packed, other = (logged(trained(name), "train/loss") for name in ("packed", way))
    assert list(packed) == list(range(1, STEPS + 1))
    assert other == pytest.approx(packed, rel=1e-5)


@pytest.mark.parametrize("way", OTHER_BATCHES)
def test_other_batches_have_other_losses_so_equal_ones_mean_something(trained, way):
    assert logged(trained(way), "train/loss") != pytest.approx(logged(trained("packed"), "train/loss"), rel=1e-3)


def test_rows_packed_over_the_data_set_hold_more_documents_and_fill_their_slots(trained):
    documents, tokens = (
        list(logged(trained("over the data set"), f"train/{name}").values()) for name in ("global_valid_seqs", "tokens")
    )
    everything = sum(list(logged(trained("packed"), "train/tokens").values())[:PER_EPOCH])
    per_epoch = math.ceil(everything / ROW) // 2
    assert max(tokens) <= 2 * ROW
    assert sum(tokens[:per_epoch]) > 0.85 * 2 * ROW * per_epoch
    assert max(documents) > BATCH and sum(documents[:per_epoch]) <= DOCUMENTS


def test_sorted_trainings_begin_with_the_shortest_in_every_epoch(trained):
    in_order, shuffled = (list(logged(trained(way), "train/tokens").values()) for way in ("sorted", "packed"))
    assert in_order[:PER_EPOCH] == sorted(in_order[:PER_EPOCH])
    assert in_order[PER_EPOCH:] == in_order[: STEPS - PER_EPOCH]
    assert shuffled[:PER_EPOCH] != sorted(shuffled[:PER_EPOCH])
