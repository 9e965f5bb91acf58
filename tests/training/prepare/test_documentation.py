"""The page on data preparation names every key of the configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from skills_pipe.training.prepare.config import PACKAGED

PAGE = Path(__file__).parents[3] / "docs" / "data_preparation.md"


def keys() -> list[str]:
    values = yaml.safe_load((PACKAGED / "math_sft.yaml").read_text())
    del values["processors"]
    return [name for key, value in values.items() for name in (value if isinstance(value, dict) else [key])]


@pytest.mark.parametrize("key", keys())
def test_every_key_is_documented(key):
    assert re.search(rf"[`.]{key}[`= ]", PAGE.read_text())


def test_a_missing_key_would_be_found():
    assert not re.search(r"[`.]min_votes[`= ]", PAGE.read_text())
