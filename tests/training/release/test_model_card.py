"""The card and the lineage of a model tell what was done, and no more than is known."""

import json
from dataclasses import replace

import pytest
import yaml

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.metrics import read_metrics
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.average import Average, average
from skills_pipe.training.checkpoint.export import Export, export
from skills_pipe.training.checkpoint.jobs import code_hash
from skills_pipe.training.monitoring.curves import Curves
from skills_pipe.training.release.lineage import Lineage, read_lineage
from skills_pipe.training.release.model_card import card, metrics_files
from skills_pipe.training.sft import main
from tests.training.outputs import logged
from tests.training.sft_arguments import BATCH, arguments


def front_matter(text):
    return yaml.safe_load(text.split("---")[1])


def changed(model, **config):
    """A lineage whose configuration differs in these sections."""
    value = dict(read_lineage(model))
    tree = value["training_config"]
    value["training_config"] = tree | {name: tree[name] | part for name, part in config.items()}
    return Lineage(**value | {"jobs": tuple(value["jobs"])})


def test_the_lineage_has_data_code_configuration_jobs_and_metrics(model, run, chat_data):
    lineage = Lineage.read(model)
    assert lineage.metrics["val:val_loss"] == logged(run, "validation/val_loss")[10]
    assert lineage.counters["consumed_samples"] == 10 * BATCH
    assert lineage.training_config["data"]["train"][0]["data_path"] == str(chat_data)
    assert [(job["first_step"], job["ranks"], job["code"]) for job in lineage.jobs] == [(1, 1, code_hash())]
    assert lineage.jobs[0]["kernels"] == {"attention": "our own, document by document", "loss": "our own"}
    assert lineage.checkpoint == manifests.read(run / "checkpoints" / "step_10").digest


def test_the_card_shows_them(model, run, chat_data):
    text = (model / "README.md").read_text()
    assert f"| trained on | `{chat_data}` |" in text
    assert f"| val:val_loss | {logged(run, 'validation/val_loss')[10]:.6g} |" in text
    assert f"| documents seen | {10 * BATCH} |" in text
    assert "![Loss by step](loss.png)" in text
    assert (model / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert front_matter(text) == {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["sft"]}


def test_the_curve_ends_at_the_step_of_the_model(run, tmp_path):
    folder = export(Export(training_folder=run, output=tmp_path / "hf", step="5"))
    text = (folder / "README.md").read_text()
    assert f"| 5 | {logged(run, 'train/loss')[5]:.4f} | {logged(run, 'validation/val_loss')[5]:.4f} |" in text
    assert "| 6 |" not in text
    assert "| 10 |" in (export(Export(training_folder=run, output=tmp_path / "last")) / "README.md").read_text()


def test_the_same_checkpoint_gives_the_same_card(model, run, tmp_path):
    again = export(Export(training_folder=run, output=tmp_path / "again"))
    for name in ("README.md", "loss.png", "lineage.json"):
        assert (again / name).read_bytes() == (model / name).read_bytes()


def test_the_hub_is_told_what_is_on_the_hub(model):
    data = {"train": [{"data_path": "my-org/my-data"}, {"data_path": "rows.jsonl"}]}
    matter = front_matter(card(changed(model, policy={"model_name": "my-org/base"}, data=data), None))
    assert (matter["base_model"], matter["datasets"]) == ("my-org/base", ["my-org/my-data"])


@pytest.mark.parametrize("path", ["data/rows.jsonl", "./base", "../base", "-/base", "base/.", "folder/gone"])
def test_a_relative_path_is_nothing_on_the_hub(model, path, tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    data = {"train": [{"data_path": path}, {"data_path": "my-org/my-data"}]}
    matter = front_matter(card(changed(model, policy={"model_name": path}, data=data), None))
    assert "base_model" not in matter
    assert matter["datasets"] == ["my-org/my-data"]


def test_without_a_log_there_is_a_card_without_a_curve(model):
    text = card(Lineage.read(model), None)
    assert "loss.png" not in text
    assert "## Results" in text


def test_a_log_beside_moved_checkpoints_is_found(model, run):
    lineage = changed(model, logger={"log_dir": "/nowhere"})
    found = [path for path in metrics_files(lineage, run / "checkpoints") if path.is_file()]
    assert len(Curves.read(found[0]).loss.steps) == len({line["step"] for line in read_metrics(found[0])})
    assert Curves.read(found[0]).until(3).loss.steps == (1, 2, 3)


def test_an_average_has_a_card_of_its_own(run, model, tmp_path):
    export(Export(training_folder=run, output=run / "hf_model_step_5", step="5"))
    mean = average(Average(folder=run, steps=(5, 10), output=tmp_path / "mean"))
    text = (mean / "README.md").read_text()
    assert "The mean of the weights of 2 checkpoints" in text
    assert text.count("val:val_loss") == 2
    assert not (mean / "loss.png").exists()
    assert sorted(json.loads((mean / "lineage.json").read_text())["averaged_from"]) == [
        "hf_model_step_10",
        "hf_model_step_5",
    ]


def test_a_folder_without_a_lineage_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="does not say where it comes from"):
        read_lineage(tmp_path)
    (tmp_path / "lineage.json").write_text("{")
    with pytest.raises(CheckpointError, match="is damaged"):
        read_lineage(tmp_path)


def test_what_changed_on_the_way_stands_with_the_step_from_which_on_it_held(
    model, held_out, tiny_model_folder, chat_data, tmp_path
):
    before = arguments(tiny_model_folder, chat_data, tmp_path, "sft.max_num_steps=4")
    assert main(before) == 0
    after = arguments(tiny_model_folder, held_out, tmp_path, "sft.max_num_steps=6", "policy.max_grad_norm=0.5")
    assert main([*after, "checkpointing.on_change=continue"]) == 0
    folder = export(Export(training_folder=tmp_path, output=tmp_path / "hf"))

    first, second = Lineage.read(folder).jobs
    assert (first["first_step"], first["changes"]) == (1, {})
    assert second["first_step"] == 5
    assert {key: tuple(value.values()) for key, value in second["changes"].items() if key != "data"} == {
        "data.train.0.data_path": (str(chat_data), str(held_out)),
        "policy.max_grad_norm": (1.0, 0.5),
        "sft.max_num_steps": (4, 6),
    }
    assert second["changes"]["data"]["now"] == Lineage.read(folder).data != second["changes"]["data"]["before"]
    text = (folder / "README.md").read_text()
    assert "| from step | changed | before | from then on |" in text
    assert f"| 5 | `data.train.0.data_path` | `{chat_data}` | `{held_out}` |" in text
    assert "| 5 | `policy.max_grad_norm` | `1.0` | `0.5` |" in text
    assert f"| documents seen from step 5 on | {2 * BATCH} |" in text
    # A template of two lines does not end the table.
    template = {"before": None, "now": "{% for `m` in x %}\n" + "y" * 200}
    other = replace(Lineage.read(folder), jobs=({**second, "changes": {"policy.tokenizer.chat_template": template}},))
    (row,) = (line for line in card(other, None).splitlines() if line.startswith("| 5 | `policy.tokenizer"))
    assert row.endswith("yyy…` |") and len(row) < 250
    # The control: a run that was never changed.
    assert "from then on" not in (model / "README.md").read_text()
    assert all(job["changes"] == {} for job in Lineage.read(model).jobs)
