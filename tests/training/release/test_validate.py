"""An exported model, loaded again, has the loss that the trainer saw; a model that was changed has not."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.average import Average, average
from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.release.validate import main, validate
from skills_pipe.training.sft import main as train
from tests.training.outputs import logged
from tests.training.sft_arguments import arguments
from tests.training.tiny import save_tiny_model

ALONE = ["--tolerance=1e-7"]


def resealed(folder):
    """As if the changed folder had been exported so."""
    before = manifests.read(folder)
    (folder / "manifest.json").unlink()
    manifests.seal(folder, kind=before.kind, facts=before.facts)
    return folder


@pytest.fixture
def copy(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copy")


def test_the_loss_is_the_trainers_to_the_bit_on_this_machine(model, run, tmp_path, capsys):
    assert main([f"--model={model}", f"--report={tmp_path / 'report.json'}", *ALONE]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["trained"] == {"val:val_loss": logged(run, "validation/val_loss")[10]}
    assert report["exported"] == report["trained"]
    assert manifests.read(tmp_path / "report.json").facts["equal"] is True
    assert f"{report['trained']['val:val_loss']:.6f} of the exported model" in capsys.readouterr().out


def test_any_step_has_its_own_loss(run, tmp_path):
    folder = export(Export(training_folder=run, output=tmp_path / "hf", step="5"))
    assert main([f"--model={folder}", *ALONE]) == 0


def test_weights_that_are_a_little_off_are_found(copy, tmp_path, capsys):
    path = copy / "model.safetensors"
    tensors = load_file(path)
    tensors["lm_head.weight"] *= 0.98
    save_file(tensors, path, metadata={"format": "pt"})
    report = tmp_path / "report.json"
    assert main([f"--model={resealed(copy)}", f"--report={report}"]) == 1
    assert "differ by more than rounding" in capsys.readouterr().err
    assert not report.exists()


def validated(copy):
    """The report that `ns convert --validate` puts beside a model."""
    report = copy.with_name("copy.validation.json")
    assert main([f"--model={copy}", f"--report={report}"]) == 0
    return report


def spoilt(copy):
    path = copy / "model.safetensors"
    save_file(load_file(path) | {"lm_head.weight": torch.ones(1)}, path, metadata={"format": "pt"})
    return copy


def changed(copy):
    path = copy / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"lm_head.weight": tensors["lm_head.weight"] * 0.9}, path, metadata={"format": "pt"})
    return resealed(copy)


@pytest.mark.parametrize(("harm", "code"), [(changed, 1), (spoilt, 2)])
def test_what_an_earlier_comparison_said_does_not_outlive_one_that_fails(copy, harm, code):
    report = validated(copy)
    assert main([f"--model={harm(copy)}", f"--report={report}"]) == code
    assert not report.exists()
    assert manifests.read(report) is None, "the launcher would believe that the model is as it should be"


def test_a_comparison_by_hand_says_that_an_earlier_report_is_beside_the_model(copy, capsys):
    """It stays: what was compared by hand may be other rows."""
    report = validated(copy)
    said = f"{report} is of an earlier comparison"
    assert main([f"--model={copy}"]) == 0
    assert said not in capsys.readouterr().err
    assert main([f"--model={changed(copy)}"]) == 1
    assert said in capsys.readouterr().err
    assert json.loads(report.read_text())["equal"] is True


def test_another_chat_template_is_found(copy):
    template = (copy / "chat_template.jinja").read_text()
    other = template.replace("message['content'] + '<|im_end|>' }}{% end", "message['content'] }}{% end")
    assert other != template
    (copy / "chat_template.jinja").write_text(other)
    assert main([f"--model={resealed(copy)}"]) == 1


def test_a_damaged_file_is_found_before_anything_is_loaded(copy, capsys):
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert main([f"--model={copy}"]) == 2
    assert "the contents changed" in capsys.readouterr().err


def test_rounded_weights_have_nearly_the_same_loss(run, tmp_path):
    folder = export(Export(training_folder=run, output=tmp_path / "hf", dtype="float16"))
    assert main([f"--model={folder}"]) == 0


def test_merged_adapters_have_nearly_the_same_loss(tmp_path, chat_data, held_out):
    base = save_tiny_model(tmp_path / "base")
    keys = ["policy.dtensor_cfg.lora_cfg.enabled=true", "policy.dtensor_cfg.lora_cfg.dim=4", "sft.max_num_steps=4"]
    assert train(arguments(base, chat_data, tmp_path, *keys, "policy.lr=2e-2", validation=held_out)) == 0
    folder = export(Export(training_folder=tmp_path, output=tmp_path / "hf"))
    assert main([f"--model={folder}"]) == 0
    # Were the adapters left out, it would be seen.
    shutil.copy(base / "model.safetensors", folder / "model.safetensors")
    assert main([f"--model={resealed(folder)}"]) == 1


def test_rows_that_have_moved_are_named_anew(model, held_out, tmp_path):
    moved = shutil.copy(held_out, tmp_path / "moved.jsonl")
    assert main([f"--model={model}", f"data.validation.0.data_path={moved}", *ALONE]) == 0
    assert main([f"--model={model}", f"data.validation.0.data_path={tmp_path / 'nowhere.jsonl'}"]) == 2


def packed(config):
    """The configuration of a training over a base in 4 bit."""
    policy = config["policy"]
    section = policy["dtensor_cfg"] | {"quantization": {"load_in_4bit": True}}
    return config | {"policy": policy | {"dtensor_cfg": section}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": {"train:loss": 1.0}}, "did not validate at step 10"),
        ({"metrics": {"val:val_loss": float("nan")}}, "val:val_loss was nan in the training at step 10"),
        ({"metrics": {"val:val_loss": 1.0, "val:a/val_loss": float("inf")}}, "val:a/val_loss was inf in the training"),
        ({"ema": True}, "not their moving average"),
        ({"jobs": ...}, "has no jobs"),
        ({"training_config": packed}, "are those of a base in 4 bit, and this model is made of the whole one"),
    ],
)
def test_without_a_loss_to_compare_with_nothing_is_said_to_be_equal(copy, capsys, change, message):
    path = copy / "lineage.json"
    before = json.loads(path.read_text())
    change = {key: entry(before[key]) if callable(entry) else entry for key, entry in change.items()}
    value = {key: entry for key, entry in (before | change).items() if entry is not ...}
    path.write_text(json.dumps(value))
    assert main([f"--model={resealed(copy)}"]) == 2
    assert message in capsys.readouterr().err


def test_metrics_of_answers_are_not_compared(copy):
    path = copy / "lineage.json"
    value = json.loads(path.read_text())
    value["metrics"]["val:exact_match"] = 0.5
    path.write_text(json.dumps(value))
    assert main([f"--model={resealed(copy)}", *ALONE]) == 0


def test_an_average_has_no_loss_of_the_trainers(run, model, tmp_path):
    export(Export(training_folder=run, output=run / "hf_model_step_5", step="5"))
    mean = average(Average(folder=run, steps=(5, 10), output=tmp_path / "mean"))
    with pytest.raises(CheckpointError, match="is an average of several checkpoints"):
        validate(mean, None)


def test_two_ranks_find_the_same(model, two_ranks, tmp_path):
    losses = two_ranks(on_ranks, model=model)
    assert losses[0] == losses[1]
    trained, exported = losses[0]
    assert exported == pytest.approx(trained, rel=1e-4)


def on_ranks(world, *, model):
    """A case for ranks: both losses."""
    comparison = validate(model, world)
    return comparison.trained["val:val_loss"], comparison.exported["val:val_loss"]


def test_bfloat16_is_not_float32(model):
    assert {value.dtype for value in load_file(model / "model.safetensors").values()} == {torch.bfloat16}
