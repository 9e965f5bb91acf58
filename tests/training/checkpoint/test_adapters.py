"""A training of adapters from the command line: what its checkpoints hold, how it resumes, what is exported."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint import FileSystemReader
from transformers import AutoModelForCausalLM

from skills_pipe.artifacts import manifest
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.average import Average, average
from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.sft import main
from tests.training.models.quantized.peft_models import WIDE
from tests.training.outputs import logged
from tests.training.sft_arguments import arguments
from tests.training.test_sft import assert_equal_bits, state
from tests.training.tiny import save_tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

LORA = "policy.dtensor_cfg.lora_cfg"
IN_4_BIT = [
    "policy.dtensor_cfg.quantization.load_in_4bit=true",
    "policy.dtensor_cfg.quantization.bnb_4bit_use_double_quant=true",
]
ADAPTERS = [f"{LORA}.enabled=true", "policy.precision=float32", "policy.lr=1e-2"]
IDS = torch.arange(5, 45)[None]


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def of_folder(folder: Path) -> torch.Tensor:
    return logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))


def of_peft(base: Path, folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return logits(peft.PeftModel.from_pretrained(model, str(folder)))


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "model"
    return save_tiny_model(folder, "qwen2", tie_word_embeddings=True, attention_dropout=0.2, **WIDE)


KINDS = {
    "lora": [f"{LORA}.dropout=0.1"],
    # In parts of the model, so that full names of modules matter.
    "rslora": [
        f"{LORA}.use_rslora=true",
        f"{LORA}.match_all_linear=false",
        f"{LORA}.target_modules=['*.0.*.linear_qkv', down_proj]",
    ],
    "dora": [f"{LORA}.use_dora=true", f"{LORA}.dropout=0.1", f"{LORA}.dropout_position=pre"],
    # What is exported is merged into the base model itself, as that of any kind.
    "qlora": [f"{LORA}.dropout=0.1", *IN_4_BIT],
}


@pytest.fixture(scope="module")
def outputs(base, chat_data, tmp_path_factory) -> Callable[[str], Path]:
    """Output of a run by the kind of its adapters."""

    @functools.cache
    def output(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        assert main(arguments(base, chat_data, folder, *ADAPTERS, *KINDS[kind])) == 0
        return folder

    return output


@pytest.fixture(scope="module", params=KINDS)
def trained(request, outputs) -> Path:
    return outputs(request.param)


@pytest.fixture(scope="module")
def exported(trained) -> Path:
    return export(Export(training_folder=trained, output=trained / "final_hf_model"))


def test_peft_gives_what_the_merged_model_gives(trained, exported, base):
    merged = of_folder(exported)

    torch.testing.assert_close(of_peft(base, exported / "adapter"), merged, rtol=1e-5, atol=1e-5)
    assert (of_folder(base) - merged).abs().max() > 1e-2, "training changed something"


def test_a_wrong_scale_would_be_noticed(trained, exported, base, tmp_path):
    copy = shutil.copytree(exported / "adapter", tmp_path / "adapter")
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] * 1.05}))

    assert (of_peft(base, copy) - of_folder(exported)).abs().max() > 1e-4


def test_merging_is_that_of_peft(exported, base):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(model, str(exported / "adapter")).merge_and_unload().state_dict()
    ours = load_file(exported / "model.safetensors")

    assert ours.keys() == load_file(base / "model.safetensors").keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, merged[name], rtol=1e-5, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def test_checkpoints_hold_adapters_alone(trained, base):
    step = trained / "checkpoints" / "step_10"
    names = FileSystemReader(step / "policy" / "weights").read_metadata().state_dict_metadata
    assert names
    assert all(".lora_" in name for name in names)
    assert not any("embed" in name for name in state(trained, 10))
    facts = manifest.read(step).facts["adapter"]
    assert (facts["dim"], facts["alpha"], facts["base"]) == (8, 32, str(base))
    assert json.loads((step / "policy" / "adapter_config.json").read_text())["peft_type"] == "LORA"


def test_the_adapters_alone_are_a_peft_folder(trained, exported, base, tmp_path):
    folder = export(Export(training_folder=trained, output=tmp_path / "adapter", adapter_only=True))

    assert not (folder / "model.safetensors").exists()
    assert manifest.damage(folder, manifest.read(folder)) == []
    assert torch.equal(of_peft(base, folder), of_peft(base, exported / "adapter"))


@pytest.mark.parametrize("kind", ["dora", "qlora"])
def test_a_run_in_parts_is_the_whole_run(outputs, base, chat_data, tmp_path, kind):
    parts = [*ADAPTERS, *KINDS[kind]]
    assert main(arguments(base, chat_data, tmp_path, "checkpointing.stop_after_steps=5", *parts)) == 75
    assert main(arguments(base, chat_data, tmp_path, *parts)) == 0

    assert_equal_bits(state(tmp_path, 10), state(outputs(kind), 10))


def test_a_base_in_4_bit_learns_as_the_whole_one_does(outputs):
    """Adapters of the same kind, place and first values; the base alone is another, by what 4 bits leave out."""
    packed, whole = (list(logged(outputs(kind), "train/loss").values()) for kind in ("qlora", "lora"))

    assert sum(packed[-3:]) / 3 < packed[0] - 0.4
    assert packed != whole
    assert packed == pytest.approx(whole, rel=0.05)


def test_the_average_is_that_of_the_merged_models(trained, base):
    for step in (5, 10):
        export(Export(training_folder=trained, output=trained / f"hf_model_step_{step}", step=str(step)))
    folder = average(Average(folder=trained, steps=(5, 10), output=trained / "averaged"))

    found = load_file(folder / "model.safetensors")
    parts = [load_file(trained / f"hf_model_step_{step}" / "model.safetensors") for step in (5, 10)]
    for name, value in found.items():
        torch.testing.assert_close(value, (parts[0][name] + parts[1][name]) / 2)
    assert not (folder / "adapter").exists(), "the adapters of one step are not the average"


@pytest.fixture(scope="module")
def small(base, chat_data, tmp_path_factory) -> Path:
    """Output of two steps."""
    output = tmp_path_factory.mktemp("small")
    assert main(arguments(base, chat_data, output, *ADAPTERS, "sft.max_num_steps=2")) == 0
    return output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ([f"{LORA}.dim=4"], r"the adapters changed since step_2 was saved: dim was 8 and is 4"),
        ([f"{LORA}.alpha=16"], r"alpha was 32(\.0)? and is 16"),
        ([f"{LORA}.use_dora=true"], r"decomposed was False and is True"),
        ([f"{LORA}.exclude_modules=[o_proj]"], r"targets was down_proj, .*o_proj.* and is down_proj"),
        (IN_4_BIT, r"quantized was None and is nf4, blocks of 64, scales in 8 bit"),
        ([f"{LORA}.enabled=false"], r"step_2 is of a training of adapters, and all weights are trained now"),
    ],
)
def test_other_adapters_do_not_go_on(small, base, chat_data, change, message, capsys):
    for extra in ([], ["checkpointing.on_change=continue"]):
        assert main(arguments(base, chat_data, small, *ADAPTERS, "sft.max_num_steps=3", *change, *extra)) == 2
        assert re.search(message, capsys.readouterr().err)


def test_another_base_is_refused(small, base, chat_data, tmp_path, capsys):
    changes = {"tie_word_embeddings": True, "attention_dropout": 0.2, **WIDE}
    other = save_tiny_model(tmp_path / "other", "qwen2", seed=1, **changes)
    assert main(arguments(other, chat_data, small, *ADAPTERS, "sft.max_num_steps=3")) == 2
    assert "the base model changed since step_2" in capsys.readouterr().err

    with pytest.raises(CheckpointError, match="is not the base model that the adapters were trained on"):
        export(Export(training_folder=small, output=tmp_path / "out", base_model=str(other)))
    assert not (tmp_path / "out").exists()


def test_a_base_that_has_moved_is_named(small, base, tmp_path):
    moved = shutil.copytree(base, tmp_path / "moved")
    here = export(Export(training_folder=small, output=tmp_path / "one"))
    there = export(Export(training_folder=small, output=tmp_path / "two", base_model=str(moved)))
    assert (here / "model.safetensors").read_bytes() == (there / "model.safetensors").read_bytes()

    away = base.rename(base.with_name("away"))
    try:
        with pytest.raises(CheckpointError, match=r"is not there.*--base_model=FOLDER"):
            export(Export(training_folder=small, output=tmp_path / "three"))
    finally:
        away.rename(base)


def test_all_weights_are_no_adapters(base, chat_data, tmp_path):
    assert main(arguments(base, chat_data, tmp_path, "sft.max_num_steps=1")) == 0
    with pytest.raises(CheckpointError, match="holds all weights, and no adapters"):
        export(Export(training_folder=tmp_path, output=tmp_path / "out", adapter_only=True))
