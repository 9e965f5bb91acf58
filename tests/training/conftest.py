"""Fixtures of the engine's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.ranks.pool import Ranks

# Before torch starts its threads: tests run side by side, and equal thread counts give equal bits.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Each process that compiles would start others to compile in, which import torch before they do.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with its byte-level tokenizer, as a Hugging Face folder. Read it, don't change it."""
    from tests.training.tiny import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("tiny") / "llama")


@pytest.fixture(scope="session")
def chat_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 one-turn chats as JSON lines."""
    from tests.training.tiny import chat_rows, write_jsonl

    return write_jsonl(tmp_path_factory.mktemp("data") / "chats.jsonl", chat_rows(64))


@pytest.fixture(scope="session")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Two processes that compute cases together; see tests/training/ranks."""
    ranks = Ranks(2, tmp_path_factory.mktemp("two_ranks"))
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def four_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Four processes that compute cases together; see tests/training/ranks."""
    ranks = Ranks(4, tmp_path_factory.mktemp("four_ranks"))
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def eight_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Eight of them, for exhaustive tests alone: their starts take longer than most cases."""
    ranks = Ranks(8, tmp_path_factory.mktemp("eight_ranks"))
    yield ranks
    ranks.close()
