"""The packaged defaults are complete, and a changed one shows in review."""

from __future__ import annotations

from pathlib import Path

import yaml
from omegaconf import OmegaConf

from skills_pipe.training.config import load_config, reference, to_yaml
from skills_pipe.training.config.files import load_layers
from skills_pipe.training.config.read import declared, known_keys
from skills_pipe.training.config.schema.data import DatasetSection

GOLDEN = Path(__file__).parent / "golden" / "defaults.yaml"
PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def resolved():
    return to_yaml(load_config(None, ["policy.model_name=/models/base", "data.train_data_path=rows.jsonl"]))


def test_the_defaults_are_those_that_were_reviewed():
    assert yaml.safe_load(resolved()) == yaml.safe_load(GOLDEN.read_text()), (
        "a default changed; if it was meant: python -m tests.training.config.test_defaults"
    )


def test_every_key_of_the_schema_has_a_default_and_none_has_two():
    packaged = set()
    stack = [("", OmegaConf.to_container(load_layers(None).tree, resolve=False))]
    while stack:
        path, section = stack.pop()
        for name, value in section.items():
            packaged.add(f"{path}{name}")
            if isinstance(value, dict):
                stack.append((f"{path}{name}.", value))
    inside_null = ("checkpointing.pretrained_checkpoint.", "policy.scheduler.", "data.train.", "data.validation.")
    inside_null += ("sft.early_stopping.", "sft.loss_spikes.", "sft.val_answers.")
    known = {key for key in known_keys() if not key.startswith((*inside_null, "data.default."))}
    free = ("policy.optimizer.kwargs.",)
    assert {key for key in packaged if not key.startswith(free)} == known


def test_every_key_says_what_it_is_for():
    assert all(info.doc.endswith(".") for _, info in declared(DatasetSection).values())
    assert len(known_keys()) > 200


def test_the_reference_page_is_up_to_date():
    assert PAGE.read_text() == reference.page(), (
        "run: python -m skills_pipe.training.config.reference > docs/configuration.md"
    )
    assert "| `train_micro_batch_size` | whole number | `1` |" in reference.page()
    assert "| `enabled` | true or false | `true` |" in reference.page()
    for key in ("stop_after_steps", "train_global_batch_size", "lora_A_init", "on_bad_row"):
        assert f"| `{key}` |" in reference.page()


if __name__ == "__main__":
    GOLDEN.write_text(resolved())
