"""Fixtures of the launcher's tests."""

import pytest


@pytest.fixture(autouse=True)
def _nobody_asks_the_hub(monkeypatch):
    """Plans of these tests name models of the Hugging Face hub; where it would be nothing listens."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
