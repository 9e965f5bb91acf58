import json

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint import tensors
from skills_pipe.training.checkpoint.export import Export, export, main
from skills_pipe.training.checkpoint.stored_weights import StoredWeights
from tests.training.checkpoint.runs import (
    equal_models,
    info_at,
    new_manager,
    new_trainee,
    position_at,
    save_steps,
    train,
)
from tests.training.tiny import ARCHITECTURES, CHAT_TEMPLATE

IDS = torch.arange(5, 45).reshape(2, 20)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_exported_model_gives_the_trainers_logits_bit_for_bit(tmp_path, architecture, tied):
    trainee = save_steps(tmp_path, 1, 2, trainee=new_trainee(architecture=architecture, tied=tied))
    exported = AutoModelForCausalLM.from_pretrained(export(Export(training_folder=tmp_path, output=tmp_path / "hf")))
    assert exported.dtype == torch.float32
    assert equal_models(exported, trainee.model)
    assert torch.equal(logits(exported), logits(trainee.model))
    train(trainee, 1)
    assert not torch.equal(logits(exported), logits(trainee.model))


@pytest.mark.parametrize("tied", [False, True])
def test_bfloat16_is_the_trainers_weights_rounded(tmp_path, tied):
    trainee = save_steps(tmp_path, 1, trainee=new_trainee(tied=tied))
    export(Export(training_folder=tmp_path, output=tmp_path / "hf", dtype="bfloat16"))
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert exported.dtype == torch.bfloat16
    rounded = {name: value.to(torch.bfloat16) for name, value in trainee.model.state_dict().items()}
    assert all(torch.equal(value, rounded[name]) for name, value in exported.state_dict().items())
    trainee.model.load_state_dict(rounded)
    assert torch.equal(logits(exported.float()), logits(trainee.model))


def test_the_weights_are_those_that_torch_itself_reads(tmp_path):
    save_steps(tmp_path, 1)
    folder = tmp_path / "step_1" / "policy" / "weights"
    dcp_to_torch_save(folder, tmp_path / "all.pt")
    expected = torch.load(tmp_path / "all.pt")
    stored = StoredWeights(folder)
    assert stored.tensors.keys() == expected.keys()
    for name, value in expected.items():
        read = torch.cat([piece.clone() for piece in stored.pieces(name)]).reshape(value.shape)
        assert torch.equal(read, value)


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(12.0).reshape(3, 4).t(),
        torch.arange(3_000_000, dtype=torch.float32),
        torch.tensor(3.5),
        torch.zeros(0, 4),
        torch.arange(20, dtype=torch.bfloat16)[5:9],
        torch.tensor([True, False]),
    ],
    ids=["transposed", "several pieces", "scalar", "empty", "view", "bool"],
)
def test_any_tensor_is_read_back_as_it_was(tmp_path, value):
    tensors.write({"x": value}, tmp_path / "weights")
    pieces = [piece.clone() for piece in StoredWeights(tmp_path / "weights").pieces("x")]
    read = torch.cat(pieces) if pieces else torch.empty(0, dtype=value.dtype)
    assert read.dtype == value.dtype
    assert torch.equal(read, value.flatten())


def test_the_folder_is_complete_sealed_and_says_where_it_comes_from(tmp_path):
    save_steps(tmp_path, 1, 2)
    folder = export(Export(training_folder=tmp_path, output=tmp_path / "hf", max_shard_size=20_000))
    weights = {f"model-0000{number}-of-00007.safetensors" for number in range(1, 8)}
    side = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    records = {"model.safetensors.index.json", "lineage.json", "manifest.json", "README.md"}
    assert {path.name for path in folder.iterdir()} == weights | side | records
    assert AutoTokenizer.from_pretrained(folder).chat_template == CHAT_TEMPLATE
    assert GenerationConfig.from_pretrained(folder).eos_token_id == 4
    config = json.loads((folder / "config.json").read_text())
    assert (config["architectures"], config["dtype"], config["use_cache"]) == (["LlamaForCausalLM"], "float32", True)
    manifest = manifests.read(folder)
    assert (manifest.kind, manifest.facts["step"]) == ("hf_model", 2)
    assert manifests.damage(folder, manifest) == []
    lineage = json.loads((folder / "lineage.json").read_text())
    assert (lineage["step"], lineage["data"], lineage["base_model"]) == (2, "data-a", "model-a")
    assert lineage["checkpoint"] == manifests.read(tmp_path / "step_2").digest


def test_shards_keep_to_their_size_unless_one_tensor_is_larger(tmp_path):
    save_steps(tmp_path, 1)
    folder = export(Export(training_folder=tmp_path, output=tmp_path / "hf", max_shard_size=20_000))
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    for path in folder.glob("*.safetensors"):
        tensors = [name for name, file in index.items() if file == path.name]
        assert path.stat().st_size < 20_000 + 2_000 or len(tensors) == 1


@pytest.mark.parametrize(("wanted", "step"), [("last", 30), ("best", 20), ("10", 10)])
def test_which_step_is_exported(tmp_path, wanted, step):
    manager = new_manager(tmp_path / "checkpoints")
    trainee = new_trainee()
    for number, loss in ((10, 3.0), (20, 1.0), (30, 2.0)):
        manager.save(trainee, info_at(number, val__val_loss=loss), position_at(number))
    folder = export(Export(training_folder=tmp_path, output=tmp_path / "hf", step=wanted))
    assert manifests.read(folder).facts["step"] == step


def test_an_unfinished_last_step_is_passed_over(tmp_path):
    save_steps(tmp_path, 1, 2)
    (tmp_path / "step_2" / "manifest.json").unlink()
    assert manifests.read(export(Export(training_folder=tmp_path, output=tmp_path / "hf"))).facts["step"] == 1


@pytest.mark.parametrize("wanted", ["3", "12", "final", "-1"])
def test_a_step_that_does_not_exist_is_an_error_that_lists_what_does(tmp_path, wanted, capsys):
    save_steps(tmp_path, 1, 2)
    arguments = [f"--training_folder={tmp_path}", f"--hf_ckpt_path={tmp_path / 'hf'}", f"--step={wanted}"]
    assert main(arguments) == 2
    assert f"no whole checkpoint of step '{wanted}'" in (told := capsys.readouterr().err)
    assert "choose last, best or one of 1, 2" in told
    assert not (tmp_path / "hf").exists()


def test_best_without_the_metric_is_an_error(tmp_path, capsys):
    save_steps(tmp_path, 1)
    assert main(["--training_folder", str(tmp_path), "--hf_ckpt_path", str(tmp_path / "hf"), "--step", "best"]) == 2
    assert "no checkpoint has the metric 'val:val_loss'" in capsys.readouterr().err


def test_a_folder_without_checkpoints_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint step_N lies in"):
        export(Export(training_folder=tmp_path, output=tmp_path / "hf"))


def test_damaged_weights_are_not_exported_and_a_damaged_optimizer_does_not_matter(tmp_path):
    save_steps(tmp_path, 1)
    (tmp_path / "step_1" / "policy" / "optimizer" / "__0_0.distcp").write_bytes(b"")
    export(Export(training_folder=tmp_path, output=tmp_path / "hf"))
    path = tmp_path / "step_1" / "policy" / "weights" / "__0_0.distcp"
    data = bytearray(path.read_bytes())
    data[-200] ^= 1
    for damaged, told in (
        (data, "the contents changed"),
        (data[:-300], "bytes, .* expected"),
        (b"", "bytes, .* expected"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=rf"weights/__0_0.distcp: .*{told}"):
            export(Export(training_folder=tmp_path, output=tmp_path / "hf2"))
        assert [entry.name for entry in tmp_path.iterdir() if "hf2" in entry.name] == []


def test_an_older_model_is_replaced_and_anything_else_is_not(tmp_path):
    save_steps(tmp_path, 1, 2)
    for step in ("1", "2"):
        export(Export(training_folder=tmp_path, output=tmp_path / "hf", step=step))
    assert manifests.read(tmp_path / "hf").facts["step"] == 2
    (tmp_path / "hf" / "manifest.json").unlink()  # as a launcher leaves a model that is to be made again
    export(Export(training_folder=tmp_path, output=tmp_path / "hf", step="1"))
    assert manifests.read(tmp_path / "hf").facts["step"] == 1
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    with pytest.raises(CheckpointError, match="exists and is no model that this program wrote"):
        export(Export(training_folder=tmp_path, output=tmp_path / "notes"))
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep me"
