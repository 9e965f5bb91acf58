"""Training by compiled layers from the command line: its checkpoints are those of any other training."""

from __future__ import annotations

import pytest
from transformers import AutoModelForCausalLM

from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.sft import main
from tests.training.launch import environment, python, run
from tests.training.outputs import logged, state
from tests.training.sft_arguments import STEPS, arguments

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

PRECISE = "policy.precision=float32"
COMPILED = "policy.dtensor_cfg.compile=true"


@pytest.mark.slow
def test_jobs_with_and_without_compiling_go_on_from_each_other(tiny_model_folder, chat_data, tmp_path):
    whole, parts = (arguments(tiny_model_folder, chat_data, tmp_path / name, PRECISE) for name in ("whole", "parts"))
    assert main(whole) == 0
    assert main([*parts, COMPILED, "checkpointing.stop_after_steps=3"]) == 75
    assert main([*parts, "checkpointing.stop_after_steps=3"]) == 75
    assert main([*parts, COMPILED]) == 0

    losses, expected = (logged(tmp_path / name, "train/loss") for name in ("parts", "whole"))
    assert losses == pytest.approx(expected, rel=1e-5)
    assert len(losses) == STEPS and losses[1] != pytest.approx(losses[STEPS], rel=1e-5)
    assert state(tmp_path / "parts", STEPS).keys() == state(tmp_path / "whole", STEPS).keys()
    names = [
        AutoModelForCausalLM.from_pretrained(
            export(Export(training_folder=tmp_path / name, output=tmp_path / f"{name}-hf"))
        )
        .state_dict()
        .keys()
        for name in ("parts", "whole")
    ]
    assert names[0] == names[1]


def test_without_a_compiler_it_is_one_line_before_anything_is_read(tmp_path):
    nowhere = arguments(tmp_path / "no-model", tmp_path / "no-rows.jsonl", tmp_path / "output")
    without = environment(PATH=str(tmp_path), CXX="no-compiler", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    done = run(python("skills_pipe.training.sft", *nowhere, COMPILED), env=without)

    assert done.returncode == 2
    told = [line for line in done.stdout.splitlines() if "torch.compile does not work here" in line]
    assert len(told) == 1 and "policy.dtensor_cfg.compile" in told[0] and "g++" in told[0]
    assert "Traceback" not in done.stdout
    # Without compiling, the first mistake is another one.
    done = run(python("skills_pipe.training.sft", *nowhere), env=without)
    assert done.returncode == 2 and "torch.compile does not" not in done.stdout
