"""What the tests of the checks of a training have in common."""

import pytest


@pytest.fixture
def wandb_key(monkeypatch):
    """A key of Weights & Biases: without one there is a finding more."""
    monkeypatch.setenv("WANDB_API_KEY", "w")
