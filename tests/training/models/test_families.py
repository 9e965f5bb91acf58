"""What is special in each family is there, and what cannot be trained exactly is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from skills_pipe.errors import ConfigError
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.loss import SupervisedLoss
from skills_pipe.training.models.positions import beyond_positions, check_positions, trained_positions
from skills_pipe.training.models.spec import ModelSpec, load_model_config
from tests.training.models.test_attention import LENGTHS, logits_alone, logits_packed, packed_row
from tests.training.tiny import tiny_config, tiny_model

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 32,
}


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("mistral", {"sliding_window": 8}),
        ("gemma2", {"attn_logit_softcapping": None}),
        ("gemma2", {"sliding_window": 400}),
        ("gemma2", {"query_pre_attn_scalar": 8}),
        ("gemma3_text", {"sliding_window": 400}),
        ("gemma3_text", {"query_pre_attn_scalar": 8}),
        ("gpt_oss", {"sliding_window": 400}),
        ("gpt_oss", {"num_experts_per_tok": 1}),
        ("qwen3_moe", {"norm_topk_prob": False}),
        ("phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
    ],
)
def test_what_is_special_in_a_family_makes_a_difference_and_is_computed_as_alone(architecture, changes):
    usual, special = tiny_model(architecture), tiny_model(architecture, **changes)
    row = packed_row()

    packed = logits_packed(special, *row)

    torch.testing.assert_close(packed, logits_alone(special, row[0]), rtol=0, atol=1e-5)
    assert (packed - logits_packed(usual, *row)).abs().max() > 1e-4


def loss_of(model) -> torch.Tensor:
    ids, positions, documents = packed_row()
    return SupervisedLoss(model)(ids, positions, ids.roll(-1), documents, scale=1 / sum(LENGTHS))


def test_capped_logits_make_another_loss():
    assert (loss_of(tiny_model("gemma2")) - loss_of(tiny_model("gemma2", final_logit_softcapping=None))).abs() > 1e-4


def test_sinks_learn():
    model = tiny_model("gpt_oss")
    loss_of(model).backward()

    assert all(layer.self_attn.sinks.grad.abs().min() > 0 for layer in model.model.layers)


@pytest.mark.parametrize("architecture", ["gemma", "gemma2", "gemma3_text"])
def test_embeddings_are_as_large_as_the_family_wants_them(architecture):
    model = tiny_model(architecture)
    ids = torch.arange(5, 25)[None]
    embeddings = model.get_input_embeddings()

    torch.testing.assert_close(embeddings(ids), embeddings.weight[ids] * 32**0.5)


def config_in(folder, architecture: str, **changes: Any):
    (folder / "config.json").write_text(json.dumps(tiny_config(architecture, **changes).to_dict()))
    return load_model_config(ModelSpec(name=str(folder)))


@pytest.mark.parametrize(
    ("architecture", "changes", "what"),
    [
        ("gemma3_text", {"use_bidirectional_attention": True}, "look at later ones"),
        ("qwen3_moe", {"output_router_logits": True}, r"balances its experts.*output_router_logits=false"),
        ("gpt_oss", {"output_router_logits": True}, r"balances its experts"),
    ],
)
def test_traits_that_would_be_lost_are_refused(tmp_path, architecture, changes, what):
    with pytest.raises(ConfigError, match=what):
        config_in(tmp_path, architecture, **changes)

    assert config_in(tmp_path, architecture).model_type == architecture


def rotary(kind: Mapping[str, Any], architecture: str = "phi3") -> Any:
    return tiny_config(architecture, rope_parameters=dict(kind), original_max_position_embeddings=32)


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (rotary(LONGROPE), 32),
        (rotary({"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}, "llama"), 512),
    ],
)
def test_documents_that_would_change_the_positions_of_others_are_refused(config, limit):
    check_positions(config, longest=limit)
    with pytest.raises(ConfigError, match=rf"a document has {limit + 1} tokens; beyond {limit} .* every document"):
        check_positions(config, longest=limit + 1)


@pytest.mark.parametrize(
    ("config", "positions"),
    [
        (tiny_config("llama"), 512),
        (tiny_config("gpt2"), 512),
        (rotary(LONGROPE), 32),
        (rotary({"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}, "llama"), 2048),
        (
            rotary(
                {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 128},
                "llama",
            ),
            512,
        ),
    ],
)
def test_the_positions_that_a_model_was_made_for(config, positions):
    assert trained_positions(config) == positions


def test_documents_beyond_the_positions_are_counted_and_none_where_they_are_not_known():
    lengths = np.array([512, 513, 600, 7])
    what, fix = beyond_positions(lengths, 512)
    assert what == "2 documents are longer than the 512 positions that the model was made for, up to 600 tokens"
    assert "++policy.max_total_sequence_length=512" in fix
    assert beyond_positions(lengths, 599)[0].startswith("1 document is longer than")
    assert beyond_positions(lengths, 600) is None
    assert beyond_positions(lengths, None) is None


def test_positions_do_change_for_others_beyond_that_length():
    model = tiny_model("phi3", rope_parameters=LONGROPE, original_max_position_embeddings=32)

    @torch.no_grad()
    def difference(lengths: tuple[int, ...]) -> float:
        ids, positions, documents = packed_row(lengths)
        return float((logits_packed(model, ids, positions, documents) - logits_alone(model, ids, lengths)).abs().max())

    assert difference((20, 32, 7)) < 1e-5
    assert difference((20, 33, 7)) > 1e-4


@pytest.mark.parametrize("architecture", ["gemma2", "gpt_oss"])
def test_one_token_documents_see_themselves_only(architecture):
    model = tiny_model(architecture)
    ids = torch.arange(5, 9)[None]
    documents = Documents.of(torch.arange(5, dtype=torch.int32))

    packed = logits_packed(model, ids, torch.zeros(1, 4, dtype=torch.int64), documents)

    torch.testing.assert_close(packed, logits_alone(model, ids, (1, 1, 1, 1)), rtol=0, atol=1e-5)
