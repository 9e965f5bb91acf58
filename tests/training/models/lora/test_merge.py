"""Merging adapters in memory is what peft does, and can be taken back."""

from __future__ import annotations

import pytest
import torch

from skills_pipe.training.models.lora import adapted_modules
from skills_pipe.training.models.lora.merge import merged
from tests.training.models.lora.peft_models import pair
from tests.training.models.lora.test_linear import KINDS, logits


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
def test_merged_weights_are_those_of_peft(architecture, kind):
    both = pair(architecture, KINDS[kind])
    before, layers = logits(both.ours), list(adapted_modules(both.ours))
    theirs = both.theirs.merge_and_unload()

    with merged(both.ours):
        assert not adapted_modules(both.ours)
        ours = both.ours.state_dict()
        assert ours.keys() == theirs.state_dict().keys()
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(logits(both.ours), before, rtol=1e-4, atol=1e-5)

    assert list(adapted_modules(both.ours)) == layers
    assert torch.equal(logits(both.ours), before)


def test_adapters_come_back_after_a_failure():
    both = pair("llama", KINDS["lora"])
    with pytest.raises(OSError, match="full"), merged(both.ours):
        raise OSError("the disk is full")
    assert len(adapted_modules(both.ours)) == 14
