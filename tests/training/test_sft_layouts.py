"""Training from the command line on one layout of ranks, and on another from its checkpoint on."""

from __future__ import annotations

import contextlib
import io

import peft
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.training.carry_out import carry_out
from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.config import load_config
from skills_pipe.training.distributed import World
from skills_pipe.training.setup import build_run, load_parts
from skills_pipe.training.sft import main
from skills_pipe.training.signals import SignalListener
from tests.training.launch import run, torchrun
from tests.training.models.quantized.peft_models import WIDE
from tests.training.outputs import logged
from tests.training.sft_arguments import STEPS, arguments
from tests.training.tiny import save_tiny_model

SFT = "skills_pipe.training.sft"
ALONE = [
    "policy.precision=float32",
    "policy.scheduler={name: torch.optim.lr_scheduler.LinearLR, kwargs: {start_factor: 0.1, total_iters: 8}}",
]
SHARED = ["policy.context_parallel_size=2", "policy.expert_model_parallel_size=2"]


IN_4_BIT = [
    "policy.dtensor_cfg.lora_cfg.enabled=true",
    "policy.dtensor_cfg.quantization.load_in_4bit=true",
    "policy.dtensor_cfg.quantization.bnb_4bit_use_double_quant=true",
]


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_two_ranks_with_a_base_in_4_bit_begin_and_one_process_ends(chat_data, tmp_path):
    model = save_tiny_model(tmp_path / "model", "llama", **WIDE)
    assert main(arguments(model, chat_data, tmp_path / "whole", *ALONE, *IN_4_BIT)) == 0

    first = arguments(model, chat_data, tmp_path / "parts", *ALONE, *IN_4_BIT, "checkpointing.stop_after_steps=4")
    begun = run(torchrun(2, SFT, *first))
    verdict = Verdict.read(tmp_path / "parts" / "checkpoints" / "verdict.json")
    assert verdict is not None and verdict.outcome is Outcome.CONTINUE, begun.stdout
    assert "73,728 parameters: nf4, blocks of 64, scales in 8 bit" in begun.stdout
    assert main(arguments(model, chat_data, tmp_path / "parts", *ALONE, *IN_4_BIT)) == 0

    losses, expected = (logged(tmp_path / name, "train/loss") for name in ("parts", "whole"))
    assert len(losses) == STEPS
    assert losses == pytest.approx(expected, rel=1e-5)
    exported = export(Export(training_folder=tmp_path / "parts", output=tmp_path / "hf"))
    merged = AutoModelForCausalLM.from_pretrained(exported)
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_two_ranks_that_share_rows_and_experts_begin_and_one_process_ends(chat_data, tmp_path):
    model = save_tiny_model(tmp_path / "model", "qwen3_moe")
    assert main(arguments(model, chat_data, tmp_path / "whole", *ALONE)) == 0

    first = arguments(model, chat_data, tmp_path / "parts", *ALONE, *SHARED, "checkpointing.stop_after_steps=4")
    begun = run(torchrun(2, SFT, *first))
    # torchrun turns the exit code of every rank that is not 0 into 1.
    verdict = Verdict.read(tmp_path / "parts" / "checkpoints" / "verdict.json")
    assert verdict is not None and verdict.outcome is Outcome.CONTINUE, begun.stdout
    assert "context 2, experts over 2" in begun.stdout
    assert "deprecated" not in begun.stdout
    assert len(logged(tmp_path / "parts", "train/loss")) == 4
    assert main(arguments(model, chat_data, tmp_path / "parts", *ALONE)) == 0

    losses, expected = (logged(tmp_path / name, "train/loss") for name in ("parts", "whole"))
    assert len(losses) == STEPS
    assert losses == pytest.approx(expected, rel=1e-5)
    exported = export(Export(training_folder=tmp_path / "parts", output=tmp_path / "hf"))
    assert AutoModelForCausalLM.from_pretrained(exported).num_experts == 4


LORA = [
    "policy.dtensor_cfg.lora_cfg.enabled=true",
    "policy.dtensor_cfg.lora_cfg.use_dora=true",
    "policy.lr=1e-2",
]
TENSOR = ["policy.tensor_model_parallel_size=2", "policy.sequence_parallel=true"]


def trained(world: World, *, overrides: list[str]) -> tuple[Outcome, str]:
    """The training program on a rank that is there already: how it ended, and what it said."""
    config, listener = load_config(None, overrides), SignalListener()
    with contextlib.redirect_stdout(io.StringIO()) as said, listener.listening():
        parts = load_parts(config, world)
        return carry_out(build_run(config, parts, world, listener), parts).outcome, said.getvalue()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_adapters_begin_on_ranks_that_share_layers_go_on_on_shards_and_end_in_one_process(
    two_ranks, chat_data, tmp_path
):
    model = save_tiny_model(tmp_path / "model", "llama")
    assert main(arguments(model, chat_data, tmp_path / "whole", *ALONE, *LORA)) == 0

    parts = arguments(model, chat_data, tmp_path / "parts", *ALONE, *LORA)
    for layout, said, done in ((TENSOR, "tensor 2 with sequence parallelism", 4), ([], "2 on cpu", 8)):
        (outcome, told), (other, _) = two_ranks(
            trained, overrides=[*parts, *layout, "checkpointing.stop_after_steps=4"]
        )
        assert outcome is other is Outcome.CONTINUE
        assert said in told
        assert len(logged(tmp_path / "parts", "train/loss")) == done
    assert main(parts) == 0

    losses, expected = (logged(tmp_path / name, "train/loss") for name in ("parts", "whole"))
    assert len(losses) == STEPS
    assert losses == pytest.approx(expected, rel=1e-5)
    ours, theirs = (
        export(Export(training_folder=tmp_path / name, output=tmp_path / f"hf-{name}")) for name in ("parts", "whole")
    )
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        found, reference = load_file(ours / file), load_file(theirs / file)
        assert found.keys() == reference.keys()
        for name, value in found.items():
            torch.testing.assert_close(
                value, reference[name], rtol=1e-4, atol=2e-5, msg=lambda text, n=name: f"{n}: {text}"
            )
    merged = AutoModelForCausalLM.from_pretrained(ours, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    ids = torch.arange(5, 45)[None]
    with torch.no_grad():
        before = base(ids, use_cache=False).logits
        after = merged(ids, use_cache=False).logits
        by_peft = peft.PeftModel.from_pretrained(base, str(ours / "adapter"))(ids, use_cache=False).logits
    torch.testing.assert_close(by_peft, after, rtol=1e-5, atol=1e-5)
    assert (before - after).abs().max() > 1e-2, "training changed something"
