import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.average import Average, average, main
from tests.training.tiny import save_tiny_model


def sealed_model(folder, step, tensors):
    """A model folder as the export leaves it, with these tensors."""
    path = folder / f"hf_model_step_{step}"
    path.mkdir()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    (path / "config.json").write_text(json.dumps({"from": step}))
    (path / "lineage.json").write_text(json.dumps({"step": step}))
    manifests.seal(path, kind="hf_model")
    return path


def random_models(folder, *steps, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    models = {}
    for step in steps:
        models[step] = {name: torch.randn(7, 5, generator=generator).to(dtype) for name in ("a", "b")}
        sealed_model(folder, step, models[step])
    return models


def averaged(folder, *steps, **options):
    return load_file(
        average(Average(folder=folder, steps=steps, output=folder / "out", **options)) / "model.safetensors"
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_mean_is_taken_in_fp32_and_rounded_once(tmp_path, dtype):
    models = random_models(tmp_path, 10, 20, 30, dtype=dtype)
    result = averaged(tmp_path, 10, 20, 30)
    for name, value in result.items():
        copies = [models[step][name].float().numpy() for step in (10, 20, 30)]
        by_hand = (copies[0] + copies[1] + copies[2]) / np.float32(3)
        assert value.dtype == dtype
        assert torch.equal(value, torch.from_numpy(by_hand).to(dtype))


def test_a_sum_in_bfloat16_would_differ(tmp_path):
    models = random_models(tmp_path, 10, 20, 30, dtype=torch.bfloat16)
    result = averaged(tmp_path, 10, 20, 30)
    naive = (models[10]["a"] + models[20]["a"] + models[30]["a"]) / 3
    assert not torch.equal(result["a"], naive)


def test_one_model_averages_to_itself(tmp_path):
    models = random_models(tmp_path, 10, dtype=torch.bfloat16)
    result = averaged(tmp_path, 10)
    assert all(torch.equal(result[name], value) for name, value in models[10].items())


def test_the_order_of_the_steps_changes_no_bit(tmp_path):
    random_models(tmp_path, 1, 2, 3, 4)
    one, other = averaged(tmp_path, 1, 2, 3, 4), averaged(tmp_path, 3, 1, 4, 2)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_step_1_does_not_pull_step_10(tmp_path):
    models = random_models(tmp_path, 1, 10, 100)
    result = averaged(tmp_path, 1)
    assert all(torch.equal(result[name], value) for name, value in models[1].items())


def test_a_missing_step_is_an_error_that_says_what_there_is(tmp_path, capsys):
    random_models(tmp_path, 10, 100)
    arguments = [f"--checkpoint_dir={tmp_path}", "--steps=10, 1, 20", f"--output={tmp_path / 'out'}"]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert "hf_model_step_1 is missing; hf_model_step_20 is missing" in told
    assert "which holds hf_model_step_10, hf_model_step_100" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("steps", ["", "10 20", "10,,20", "10,x", "10,10", "-1"])
def test_a_malformed_list_of_steps_is_refused(tmp_path, steps, capsys):
    random_models(tmp_path, 10, 20)
    with pytest.raises(SystemExit) as caught:
        main([f"--checkpoint_dir={tmp_path}", f"--steps={steps}", f"--output={tmp_path / 'out'}"])
    assert caught.value.code == 2
    assert "--steps" in capsys.readouterr().err


def test_an_unfinished_or_shortened_source_is_an_error(tmp_path):
    random_models(tmp_path, 10, 20, 30)
    (tmp_path / "hf_model_step_20" / "manifest.json").unlink()
    weights = tmp_path / "hf_model_step_30" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError) as caught:
        averaged(tmp_path, 10, 20, 30)
    assert "hf_model_step_20 is unfinished" in str(caught.value)
    assert "model.safetensors: " in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: model.pop("b"), "b only in hf_model_step_10"),
        (lambda model: model.update(c=torch.zeros(2)), "c only in hf_model_step_20"),
        (lambda model: model.update(a=torch.zeros(5, 7)), r"a has shape \(7, 5\) in .* and \(5, 7\) in"),
        (lambda model: model.update(a=model["a"].bfloat16()), "a is torch.float32 in .* and torch.bfloat16 in"),
    ],
)
def test_models_that_do_not_match_are_refused_before_anything_is_written(tmp_path, change, sentence):
    models = random_models(tmp_path, 10, 20)
    change(models[20])
    shutil.rmtree(tmp_path / "hf_model_step_20")
    sealed_model(tmp_path, 20, models[20])
    with pytest.raises(CheckpointError, match=sentence):
        averaged(tmp_path, 10, 20)
    assert {path.name for path in tmp_path.iterdir()} == {"hf_model_step_10", "hf_model_step_20"}


def test_integers_must_be_equal_and_stay_as_they_are(tmp_path):
    numbers = torch.tensor([3, 5, 2**60 + 1])
    for step in (10, 20):
        sealed_model(tmp_path, step, {"a": torch.ones(2) * step, "n": numbers})
    sealed_model(tmp_path, 30, {"a": torch.ones(2), "n": numbers + 1})
    result = averaged(tmp_path, 10, 20)
    assert torch.equal(result["n"], numbers)
    assert result["a"].tolist() == [15.0, 15.0]
    with pytest.raises(CheckpointError, match="n holds integers that differ"):
        averaged(tmp_path, 10, 30)


def test_side_files_come_from_the_last_step_and_the_record_names_all(tmp_path):
    random_models(tmp_path, 9, 10)
    average(Average(folder=tmp_path, steps=(10, 9), output=tmp_path / "out"))
    out = tmp_path / "out"
    assert json.loads((out / "config.json").read_text()) == {"from": 10}
    assert json.loads((out / "lineage.json").read_text()) == {
        "averaged_from": {"hf_model_step_9": {"step": 9}, "hf_model_step_10": {"step": 10}}
    }
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "averaged_from": "9,10"}
    manifest = manifests.read(out)
    assert (manifest.kind, manifest.facts["averaged_from"]) == ("hf_model", [9, 10])
    assert manifests.damage(out, manifest) == []


def test_sharded_sources_of_any_split_are_averaged(tmp_path):
    for step in (10, 20):
        path = save_tiny_model(tmp_path / f"hf_model_step_{step}", seed=step)
        if step == 20:
            model = AutoModelForCausalLM.from_pretrained(path)
            (path / "model.safetensors").unlink()
            model.save_pretrained(path, max_shard_size="30KB")
        manifests.seal(path, kind="hf_model")
    out = average(Average(folder=tmp_path, steps=(10, 20), output=tmp_path / "out", max_shard_size=50_000))
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / f"hf_model_step_{step}") for step in (10, 20)]
    result = AutoModelForCausalLM.from_pretrained(out).state_dict()
    for name, value in result.items():
        assert torch.equal(value, (models[0].state_dict()[name] + models[1].state_dict()[name]) / 2)
    assert len(AutoTokenizer.from_pretrained(out)) == 261


def test_sources_are_removed_only_when_asked_and_only_those(tmp_path):
    random_models(tmp_path, 10, 20, 200)
    averaged(tmp_path, 10, 20)
    assert (tmp_path / "hf_model_step_10").is_dir()
    averaged(tmp_path, 10, 20, remove=True)
    assert {path.name for path in tmp_path.iterdir()} == {"hf_model_step_200", "out"}


def test_a_removal_that_was_cut_short_is_finished_without_averaging_again(tmp_path):
    random_models(tmp_path, 10, 20)
    averaged(tmp_path, 10, 20)
    (tmp_path / "hf_model_step_10" / "manifest.json").unlink()
    before = manifests.read(tmp_path / "out").digest
    averaged(tmp_path, 10, 20, remove=True)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert manifests.read(tmp_path / "out").digest == before


def test_newer_sources_are_never_removed_for_an_older_average(tmp_path):
    random_models(tmp_path, 10, 20)
    averaged(tmp_path, 10, 20)
    for step in (10, 20):
        shutil.rmtree(tmp_path / f"hf_model_step_{step}")
    sealed_model(tmp_path, 10, {"a": torch.zeros(3)})
    with pytest.raises(CheckpointError, match="hf_model_step_20 is missing"):
        averaged(tmp_path, 10, 20, remove=True)
    assert (tmp_path / "hf_model_step_10").is_dir()


@pytest.mark.parametrize("remove", [False, True])
def test_the_result_never_replaces_one_of_its_sources(tmp_path, remove):
    random_models(tmp_path, 1, 2)
    (tmp_path / "link").symlink_to(tmp_path / "hf_model_step_2")
    for output in ("hf_model_step_2", "link"):
        with pytest.raises(CheckpointError, match="is one of the models to average"):
            average(Average(folder=tmp_path, steps=(1, 2), output=tmp_path / output, remove=remove))
    for step in (1, 2):
        path = tmp_path / f"hf_model_step_{step}"
        assert manifests.damage(path, manifests.read(path)) == []
