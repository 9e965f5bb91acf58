"""The page about datasets: its configurations are accepted, and its table has every name."""

import re
from pathlib import Path

import pytest

from skills_pipe.training.config import load_config
from skills_pipe.training.config.dataset_names import DATASETS
from tests.docs.documents import blocks

PAGE = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
YAML = [block for block in blocks(PAGE) if block.language == "yaml"]


@pytest.mark.parametrize("block", YAML, ids=lambda block: f"line {block.line}")
def test_a_configuration_of_the_page_is_accepted(block, tmp_path):
    path = tmp_path / "page.yaml"
    path.write_text(block.text)
    assert load_config(path, ["policy.model_name=none"]).data.train


def test_a_key_that_is_misspelt_would_be_found(tmp_path):
    path = tmp_path / "page.yaml"
    path.write_text(YAML[1].text.replace("truncation_field", "truncate_field"))
    with pytest.raises(Exception, match=r"unknown key data\.train\.truncate_field"):
        load_config(path, ["policy.model_name=none"])


def test_the_table_has_every_name():
    named = re.findall(r"^\| `([^`]+)`", PAGE.partition("## Names")[2].partition("## Paths")[0], re.MULTILINE)
    assert set(named) == {"dataset_name", *DATASETS, "package.module.Class"}
