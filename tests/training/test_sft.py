"""Training from the command line, end to end: what it leaves behind, how it resumes, and how each job ends."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from skills_pipe.artifacts import manifest
from skills_pipe.artifacts.metrics import read_metrics
from skills_pipe.artifacts.names import ENV_DEADLINE, ENV_SAVE_NOW, ENV_VERDICT
from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.manager import CheckpointManager
from skills_pipe.training.monitoring.console import Console
from skills_pipe.training.sft import main
from skills_pipe.training.signals import StopReason, StopRequest
from tests.training.exhaustive import mostly_exhaustive
from tests.training.launch import environment, python, run, torchrun
from tests.training.outputs import assert_equal_bits, logged, saved_steps, state, verdict
from tests.training.sft_arguments import STEPS, arguments
from tests.training.tiny import chat_rows, save_tiny_model, write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SFT = "skills_pipe.training.sft"
SCHEDULE = [
    "policy.scheduler={name: torch.optim.lr_scheduler.LinearLR, kwargs: {start_factor: 0.1, total_iters: 8}}",
]


@pytest.fixture(scope="session")
def dropout_model(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("dropout") / "model", attention_dropout=0.2)


@pytest.fixture(scope="session")
def held_out(tmp_path_factory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("held-out") / "chats.jsonl", chat_rows(13, seed=1))


@pytest.fixture(autouse=True)
def started_by_hand(monkeypatch):
    for name in (ENV_DEADLINE, ENV_SAVE_NOW, ENV_VERDICT):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def whole(dropout_model, chat_data, held_out, tmp_path_factory) -> Path:
    """Output of an uninterrupted run with dropout, packing, a schedule and validation."""
    output = tmp_path_factory.mktemp("whole")
    extra = [*SCHEDULE, "sft.val_period=5", "sft.val_at_start=true"]
    assert main(arguments(dropout_model, chat_data, output, *extra, validation=held_out)) == 0
    return output


def test_a_finished_run_is_sealed_and_says_so(whole):
    assert verdict(whole) == Verdict(outcome=Outcome.COMPLETE, step=STEPS, reason="all 10 steps are done")
    sealed = manifest.read(whole / "checkpoints")
    assert (sealed.kind, sealed.facts["steps"]) == ("training", STEPS)
    assert manifest.damage(whole / "checkpoints", sealed) == []
    assert saved_steps(whole) == [5, 10]


def test_every_step_is_logged_and_the_loss_falls(whole):
    losses = logged(whole, "train/loss")
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses[STEPS] < losses[1]
    assert {"train/lr", "train/grad_norm", "train/tokens_per_second"} <= read_metrics(
        whole / "training-logs" / "metrics.jsonl"
    )[1].keys()
    assert (whole / "training-logs" / "loss.png").stat().st_size > 0


def test_the_logged_rate_is_the_one_that_the_step_used(whole):
    rates = logged(whole, "train/lr")
    assert rates[1] == pytest.approx(1e-4)
    assert rates[9] == pytest.approx(1e-3)


def test_validation_runs_at_the_start_and_at_its_period(whole):
    assert list(logged(whole, "validation/val_loss")) == [0, 5, 10]
    info = json.loads((whole / "checkpoints" / "step_5" / "training_info.json").read_text())
    assert info["val:val_loss"] == logged(whole, "validation/val_loss")[5]


@pytest.mark.parametrize(
    "cut",
    [["sft.val_global_batch_size=4"], ["policy.sequence_packing.enabled=false", "sft.val_micro_batch_size=5"]],
)
def test_the_validation_loss_does_not_depend_on_how_it_is_batched(dropout_model, chat_data, held_out, cut, tmp_path):
    extra = ["sft.val_at_start=true", "sft.max_num_steps=1", "policy.precision=float32", "checkpointing.enabled=false"]
    losses = []
    for index, settings in enumerate(([], cut)):
        output = tmp_path / str(index)
        assert main(arguments(dropout_model, chat_data, output, *extra, *settings, validation=held_out)) == 0
        losses.append(logged(output, "validation/val_loss")[0])

    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_counters_of_a_checkpoint(whole):
    info = json.loads((whole / "checkpoints" / "step_10" / "training_info.json").read_text())
    assert (info["total_steps"], info["epoch"], info["step"], info["consumed_samples"]) == (10, 1, 2, 80)
    assert info["total_valid_tokens"] == sum(logged(whole, "train/global_valid_toks").values())


def test_four_steps_and_six_more_give_the_bits_of_ten(whole, dropout_model, chat_data, held_out, tmp_path):
    extra = [*SCHEDULE, "sft.val_period=5", "sft.val_at_start=true"]
    first = arguments(dropout_model, chat_data, tmp_path, *extra, validation=held_out)

    assert main([*first, "checkpointing.stop_after_steps=4"]) == 75
    assert verdict(tmp_path).outcome is Outcome.CONTINUE
    assert main(first) == 0

    assert_equal_bits(state(tmp_path, STEPS), state(whole, STEPS))
    assert logged(tmp_path, "train/loss") == logged(whole, "train/loss")
    assert logged(tmp_path, "validation/val_loss") == logged(whole, "validation/val_loss")


def test_the_comparison_of_bits_sees_another_dropout(whole, dropout_model, chat_data, held_out, tmp_path):
    first = arguments(dropout_model, chat_data, tmp_path, *SCHEDULE, validation=held_out)
    assert main([*first, "checkpointing.stop_after_steps=4"]) == 75
    path = tmp_path / "checkpoints" / "step_4" / "manifest.json"
    facts = json.loads(path.read_text())
    facts["facts"]["world_size"] = 3  # so that the random numbers are not restored
    path.write_text(json.dumps(facts))
    assert main(first) == 0

    with pytest.raises(AssertionError):
        assert_equal_bits(state(tmp_path, STEPS), state(whole, STEPS))


def test_a_finished_run_has_nothing_left_to_do(whole, dropout_model, chat_data, held_out):
    before = state(whole, STEPS)
    extra = [*SCHEDULE, "sft.val_period=5", "sft.val_at_start=true"]

    assert main(arguments(dropout_model, chat_data, whole, *extra, validation=held_out)) == 0

    assert_equal_bits(state(whole, STEPS), before)
    assert manifest.damage(whole / "checkpoints", manifest.read(whole / "checkpoints")) == []


def test_a_deadline_that_is_too_near_saves_and_continues(tiny_model_folder, chat_data, tmp_path, monkeypatch):
    monkeypatch.setenv(ENV_DEADLINE, str(time.time()))
    assert main(arguments(tiny_model_folder, chat_data, tmp_path)) == 75
    assert (verdict(tmp_path).outcome, verdict(tmp_path).step) == (Outcome.CONTINUE, 1)
    assert "time of this job" in verdict(tmp_path).reason
    assert saved_steps(tmp_path) == [1]


def test_a_deadline_counted_from_the_start_of_the_process(tiny_model_folder, chat_data, tmp_path):
    limit = 'checkpointing.checkpoint_must_save_by="00:00:00:01"'
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, limit)) == 75
    assert verdict(tmp_path).outcome is Outcome.CONTINUE


def test_a_deadline_that_is_far_off_changes_nothing(tiny_model_folder, chat_data, tmp_path, monkeypatch):
    monkeypatch.setenv(ENV_DEADLINE, str(time.time() + 10_000))
    assert main(arguments(tiny_model_folder, chat_data, tmp_path)) == 0


def test_the_save_now_file_saves_and_continues(tiny_model_folder, chat_data, tmp_path, monkeypatch):
    (tmp_path / "now").touch()
    monkeypatch.setenv(ENV_SAVE_NOW, str(tmp_path / "now"))
    assert main(arguments(tiny_model_folder, chat_data, tmp_path)) == 75
    assert "asked to save" in verdict(tmp_path).reason


def test_the_verdict_goes_where_the_launcher_wants_it(tiny_model_folder, chat_data, tmp_path, monkeypatch):
    monkeypatch.setenv(ENV_VERDICT, str(tmp_path / "wanted.json"))
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, "sft.max_num_steps=1")) == 0
    assert Verdict.read(tmp_path / "wanted.json").outcome is Outcome.COMPLETE
    assert verdict(tmp_path) is None


def test_a_loss_that_is_no_number_fails_and_names_the_step(tiny_model_folder, chat_data, tmp_path):
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, "policy.lr=1e30", "policy.max_grad_norm=null")) == 1
    found = verdict(tmp_path)
    assert found.outcome is Outcome.FAILED
    assert found.reason.startswith(f"step {found.step + 1}: the loss is")
    assert math.isfinite(logged(tmp_path, "train/loss")[found.step])


def test_stopping_without_checkpoints_is_a_failure(tiny_model_folder, chat_data, tmp_path):
    extra = ["checkpointing.enabled=false", "checkpointing.stop_after_steps=2"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 1
    assert "nothing was saved" in verdict(tmp_path).reason


@pytest.mark.parametrize(
    ("extra", "validated", "said"),
    [
        ([], False, "the newest 10 kept"),
        ([], True, "the best 10 by val:val_loss kept"),
        (["checkpointing.save_period=1", "sft.val_period=1"], True, "the best 10 by val:val_loss kept"),
        (["checkpointing.metric_name=train:loss"], False, "the best 10 by train:loss kept"),
        (["checkpointing.keep_top_k=null"], True, "all kept"),
    ],
)
def test_the_summary_says_which_checkpoints_stay(
    tiny_model_folder, chat_data, held_out, tmp_path, capsys, extra, validated, said
):
    extra = [*extra, "sft.max_num_steps=1"]
    settings = arguments(tiny_model_folder, chat_data, tmp_path, *extra, validation=held_out if validated else None)
    assert main(settings) == 0
    told = capsys.readouterr().out
    assert f"checkpoints, {said}" in told
    assert ("every step and at the end" in told) == ("checkpointing.save_period=1" in extra)
    assert "every 1 steps" not in told
    assert f"\nmodel: {tiny_model_folder} (llama, " in f"\n{told}"
    assert "\nsteps: 1 of " in told
    assert "\nmodel: attention by: our own, document by document\nmodel: loss by: our own\n" in told


@pytest.mark.parametrize(("positions", "told"), [(32, True), (512, False)])
def test_documents_beyond_the_positions_of_the_model_are_told_before_training(
    tiny_model_folder, chat_data, tmp_path, capsys, positions, told
):
    extra = ["sft.max_num_steps=1", f"++policy.hf_config_overrides.max_position_embeddings={positions}"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 0
    warned = "longer than the 32 positions that the model was made for, up to"
    assert (warned in capsys.readouterr().out) == told


def test_fewer_steps_than_were_done_are_complete_and_say_of_which_step(tiny_model_folder, chat_data, tmp_path):
    settings = arguments(tiny_model_folder, chat_data, tmp_path)
    assert main([*settings, "sft.max_num_steps=3"]) == 0
    assert main([*settings, "sft.max_num_steps=2"]) == 0
    assert (verdict(tmp_path).step, saved_steps(tmp_path)) == (3, [3])
    assert verdict(tmp_path).reason == "all 2 steps are done, the checkpoint is of step 3"


def test_a_crash_leaves_no_verdict_of_an_earlier_start(tiny_model_folder, chat_data, tmp_path, monkeypatch):
    monkeypatch.setenv(ENV_VERDICT, str(tmp_path / "verdict.json"))
    Verdict(outcome=Outcome.COMPLETE, step=STEPS, reason="earlier").write(tmp_path / "verdict.json")
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ValueError, match="two"):
        main(arguments(tiny_model_folder, chat_data, tmp_path))
    assert Verdict.read(tmp_path / "verdict.json") is None


@pytest.mark.parametrize("failure", [CheckpointError("the disk is full"), KeyboardInterrupt()])
def test_logs_end_before_an_error_is_told_and_only_mistakes_have_a_verdict(
    tiny_model_folder, chat_data, tmp_path, monkeypatch, failure
):
    closed = []

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr(CheckpointManager, "save", fail)
    monkeypatch.setattr(Console, "close", lambda _: closed.append(verdict(tmp_path)))
    settings = arguments(tiny_model_folder, chat_data, tmp_path)
    if isinstance(failure, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            main(settings)
        assert verdict(tmp_path) is None
    else:
        assert main(settings) == 2
        assert verdict(tmp_path).reason == "the disk is full"
    assert closed == [None]


def test_the_time_of_the_first_validation_is_reckoned_with(
    tiny_model_folder, chat_data, held_out, tmp_path, monkeypatch
):
    asked = {}
    poll = StopRequest.poll

    def recorded(self: StopRequest, *, steps: int, step_seconds: float, save_seconds: float) -> StopReason:
        asked[steps] = step_seconds
        return poll(self, steps=steps, step_seconds=step_seconds, save_seconds=save_seconds)

    monkeypatch.setattr(StopRequest, "poll", recorded)
    extra = ["sft.val_period=3", "sft.max_num_steps=4", "checkpointing.enabled=false"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra, validation=held_out)) == 0
    # 13 documents against 8 of a step, all of about the same length.
    assert asked[2] > 2 * asked[1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft.max_num_step=3", "did you mean"),
        ("policy.model_name=/nowhere/model", "no tokenizer in '/nowhere/model'"),
        ("data.train_data_path=/nowhere.jsonl", "/nowhere.jsonl"),
        ("policy.train_global_batch_size=65", "policy.train_global_batch_size"),
        ("policy.optimizer.name=torch.optim.AdamX", "did you mean"),
        ("policy.scheduler={name: torch.optim.lr_scheduler.ReduceLROnPlateau, kwargs: {}}", "needs metrics"),
        (f"sft.seed={2**32}", "sft.seed"),
    ],
)
def test_a_mistake_of_the_users_is_one_line_and_a_failed_verdict(
    tiny_model_folder, chat_data, tmp_path, monkeypatch, capsys, override, message
):
    monkeypatch.setenv(ENV_VERDICT, str(tmp_path / "verdict.json"))
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, override)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert Verdict.read(tmp_path / "verdict.json").outcome is Outcome.FAILED


def test_keys_of_the_other_backend_are_noted(tiny_model_folder, chat_data, tmp_path, capsys):
    extra = ["sft.max_num_steps=1", "checkpointing.enabled=false"]
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 0
    assert "note: policy.megatron_cfg" not in capsys.readouterr().out
    typed = "++policy.megatron_cfg.scheduler.lr_warmup_iters=50"
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra, typed)) == 0
    assert "note: policy.megatron_cfg.scheduler.lr_warmup_iters: the fsdp backend" in capsys.readouterr().out


def test_unknown_keys_are_let_through_when_asked(tiny_model_folder, chat_data, tmp_path):
    extra = ["++sft.no_such_key=1", "--strict=false", "sft.max_num_steps=1"]
    with pytest.warns(UserWarning, match="no_such_key"):
        assert main(arguments(tiny_model_folder, chat_data, tmp_path, *extra)) == 0


def wait_for_step(process: subprocess.Popen, output: Path, step: int) -> None:
    """Until the process has logged ``step``; fails when it ends before."""
    path = output / "training-logs" / "metrics.jsonl"
    while not (path.exists() and logged(output, "train/loss").get(step) is not None):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: list[str], **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        command, env=environment(**env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


LONG = ["sft.max_num_steps=100000", "checkpointing.save_period=1000"]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_sigterm_saves_and_continues(tiny_model_folder, chat_data, tmp_path, ranks):
    settings = arguments(tiny_model_folder, chat_data, tmp_path, *LONG)
    process = start(torchrun(2, SFT, *settings) if ranks == 2 else python(SFT, *settings))
    wait_for_step(process, tmp_path, 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=300)

    found = verdict(tmp_path)
    assert (found.outcome, found.reason.startswith("SIGTERM")) == (Outcome.CONTINUE, True)
    assert saved_steps(tmp_path) == [found.step]
    assert found.step >= 3
    if ranks == 1:
        assert process.returncode == 75


@pytest.mark.slow
def test_two_ranks_agree_on_the_save_now_file_and_one_goes_on(tiny_model_folder, chat_data, tmp_path):
    now = tmp_path / "now"
    settings = arguments(tiny_model_folder, chat_data, tmp_path, *LONG)
    process = start(torchrun(2, SFT, *settings), **{ENV_SAVE_NOW: str(now)})
    wait_for_step(process, tmp_path, 2)
    now.touch()
    process.communicate(timeout=300)
    stopped = verdict(tmp_path)
    assert stopped.outcome is Outcome.CONTINUE

    # Saved by two ranks, continued by one: sharding is no part of a checkpoint.
    assert main(arguments(tiny_model_folder, chat_data, tmp_path, f"sft.max_num_steps={stopped.step + 3}")) == 0
    assert verdict(tmp_path).step == stopped.step + 3


@pytest.mark.slow
@pytest.mark.parametrize("how", mostly_exhaustive(["save-now", "SIGTERM", "stop_after_steps"], ["SIGTERM"]))
def test_ranks_started_one_by_one_agree_on_when_to_stop(tiny_model_folder, chat_data, tmp_path, how):
    """As srun starts them, without an agent over them; a signal to one rank is enough."""
    now = tmp_path / "now"
    extra = ["checkpointing.stop_after_steps=3"] if how == "stop_after_steps" else []
    settings = arguments(tiny_model_folder, chat_data, tmp_path, *LONG, *extra)
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), ENV_SAVE_NOW: str(now)}
    ranks = [start(python(SFT, *settings), RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(2)]
    if how != "stop_after_steps":
        wait_for_step(ranks[0], tmp_path, 3)
    if how == "save-now":
        now.touch()
    elif how == "SIGTERM":
        ranks[1].send_signal(signal.SIGTERM)
    for rank in ranks:
        rank.communicate(timeout=300)

    assert [rank.returncode for rank in ranks] == [75, 75]
    found = verdict(tmp_path)
    assert found.outcome is Outcome.CONTINUE
    assert saved_steps(tmp_path) == [found.step]
    assert found.step >= 3


@pytest.mark.slow
def test_two_ranks_write_one_verdict_and_the_losses_of_one_rank(tiny_model_folder, chat_data, held_out, tmp_path):
    extra = ["policy.precision=float32", "sft.val_period=5"]
    one, two = (
        arguments(tiny_model_folder, chat_data, tmp_path / name, *extra, validation=held_out) for name in ("one", "two")
    )
    ended = run(torchrun(2, SFT, *two))
    assert ended.returncode == 0, ended.stdout
    assert main(one) == 0

    assert verdict(tmp_path / "two") == verdict(tmp_path / "one")
    for name in ("train/loss", "validation/val_loss"):
        ours, theirs = logged(tmp_path / "two", name), logged(tmp_path / "one", name)
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.slow
def test_a_killed_job_goes_on_from_its_last_checkpoint_to_the_same_bits(dropout_model, chat_data, tmp_path):
    killed, whole = (arguments(dropout_model, chat_data, tmp_path / name, *SCHEDULE) for name in ("killed", "whole"))
    process = start(python(SFT, *killed, *LONG, "checkpointing.save_period=1"))
    wait_for_step(process, tmp_path / "killed", 6)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert verdict(tmp_path / "killed") is None

    end = max(saved_steps(tmp_path / "killed")) + STEPS
    for settings in (killed, whole):
        assert main([*settings, f"sft.max_num_steps={end}", "checkpointing.save_period=1000"]) == 0

    assert_equal_bits(state(tmp_path / "killed", end), state(tmp_path / "whole", end))
    assert logged(tmp_path / "killed", "train/loss") == logged(tmp_path / "whole", "train/loss")


def test_without_a_gpu_offloading_changes_nothing_and_is_told_to(tiny_model_folder, chat_data, tmp_path, capsys):
    losses = {}
    for offload in (True, False):
        output = tmp_path / str(offload)
        given = arguments(tiny_model_folder, chat_data, output, f"policy.dtensor_cfg.cpu_offload={offload}".lower())
        assert main(given) == 0
        losses[offload] = logged(output, "train/loss")
        told = "cpu_offload: changes nothing without a GPU" in capsys.readouterr().out
        assert told is offload
    assert losses[True] == losses[False]
