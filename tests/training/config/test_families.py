"""Models that are not trained exactly are refused by their config.json, with the reason."""

from __future__ import annotations

import pytest

from skills_pipe.training.config.families import ARCHITECTURES, untrainable
from skills_pipe.training.config.parallel import (
    CONTEXT_PARALLEL_FAMILIES,
    EXPERT_PARALLEL_FAMILIES,
    TENSOR_PARALLEL_FAMILIES,
)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_families_that_are_trained_have_no_problem(family):
    assert untrainable({"model_type": family, "output_router_logits": False, "quantization_config": None}) == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"model_type": "mamba"}, "models of the family 'mamba' are not supported"),
        ({}, "models of the family None are not supported"),
        ({"model_type": "gpt_oss", "quantization_config": {"quant_method": "mxfp4"}}, "the model is quantized"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "it cannot learn to write"),
        ({"model_type": "qwen3_moe", "output_router_logits": True}, "a loss that balances its experts"),
    ],
)
def test_others_are_refused_with_the_reason(model, message):
    (problem,) = untrainable(model)

    assert message in problem.what
    assert problem.where == "policy.model_name" and problem.fix


def test_all_that_is_wrong_is_told():
    assert len(untrainable({"model_type": "mamba", "quantization_config": {}, "output_router_logits": True})) == 3


def test_only_families_that_are_trained_are_proven_on_layouts():
    proven = {*TENSOR_PARALLEL_FAMILIES, *CONTEXT_PARALLEL_FAMILIES, *EXPERT_PARALLEL_FAMILIES}

    assert proven <= set(ARCHITECTURES)
