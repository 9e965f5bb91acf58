"""Adapters compute what peft's do: outputs, gradients, training, dropout."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.models.lora import LoraLinear, adapted_modules, add_adapters, initialise
from tests.training.models.lora.peft_models import Pair, adapter_values, pair
from tests.training.tiny import tiny_model

KINDS = {
    "lora": AdapterSpec(dim=4, alpha=10),
    "rslora": AdapterSpec(dim=4, alpha=10, rank_stabilised=True),
    "dora": AdapterSpec(dim=4, alpha=10, decomposed=True),
    "some layers": AdapterSpec(dim=2, alpha=3, targets=("q_proj", "*.1.mlp.*")),
}
IDS = torch.randint(5, 260, (2, 24), generator=torch.Generator().manual_seed(1))


def logits(model: nn.Module) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits


def train(model: nn.Module, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def assert_same_values(pair: Pair, read, tolerance: float) -> None:
    for name, (ours, theirs) in adapter_values(pair, read).items():
        assert (ours - theirs).norm() <= tolerance * theirs.norm(), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "mistral"])
def test_outputs_and_gradients_are_those_of_peft(architecture, kind):
    both = pair(architecture, KINDS[kind])
    for model in (both.ours, both.theirs):
        # What processors round differently is far below the tolerance then, and a wrong factor far above it.
        model.double()

    torch.testing.assert_close(logits(both.ours), logits(both.theirs), rtol=0, atol=1e-12)
    for model in (both.ours, both.theirs):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    assert_same_values(both, lambda parameter: parameter.grad, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_where_that_of_peft_goes(kind):
    both = pair("llama", KINDS[kind])

    assert train(both.ours, 5) == pytest.approx(train(both.theirs, 5), rel=1e-5)
    assert_same_values(both, torch.Tensor.detach, 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_another_scale_would_be_noticed(kind):
    both = pair("llama", KINDS[kind], scale=1.01)

    assert (logits(both.ours) - logits(both.theirs)).abs().max() > 1e-4


def test_a_new_adapter_changes_nothing():
    for kind, spec in KINDS.items():
        model = tiny_model("qwen2")
        before = logits(model)
        add_adapters(model, spec)
        initialise(model, spec, seed=1)
        # With DoRA the lengths are divided by themselves.
        tolerance = 1e-6 if spec.decomposed else 0.0
        assert (logits(model) - before).abs().max() <= tolerance, kind


def test_only_the_adapters_learn():
    both = pair("qwen2", KINDS["dora"])
    learns = {name for name, parameter in both.ours.named_parameters() if parameter.requires_grad}

    assert learns == {name for name in dict(both.ours.named_parameters()) if ".lora_" in name}
    before = {name: value.clone() for name, value in both.ours.state_dict().items()}
    train(both.ours, 1)
    changed = {name for name, value in both.ours.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == learns


def layer(**changes) -> LoraLinear:
    spec = AdapterSpec(dim=4, alpha=8, dropout=0.5, **changes)
    made = LoraLinear(nn.Linear(16, 12, bias=False), spec)
    with torch.no_grad():
        made.weight.zero_()
        made.lora_A.weight.normal_()
        made.lora_B.weight.normal_()
        if made.lora_magnitude_vector is not None:
            made.weight.normal_()
            made.lora_magnitude_vector.weight.fill_(1.0)
    return made.train()


def test_dropout_before_the_adapter_is_that_of_its_input():
    made, x = layer(dropout_position="pre"), torch.randn(50, 16)
    torch.manual_seed(5)
    found = made(x)
    torch.manual_seed(5)
    dropped = nn.functional.dropout(x, 0.5)

    torch.testing.assert_close(found, 2.0 * dropped @ made.lora_A.weight.T @ made.lora_B.weight.T)
    assert not (found == 0).any()


def test_dropout_after_the_adapter_is_that_of_its_output():
    made, x = layer(dropout_position="post"), torch.randn(50, 16)
    found = made(x)

    whole = 2.0 * x @ made.lora_A.weight.T @ made.lora_B.weight.T
    kept = found != 0
    assert 0.4 < kept.float().mean() < 0.6
    torch.testing.assert_close(found[kept], 2.0 * whole[kept])


@pytest.mark.parametrize("position", ["pre", "post"])
@pytest.mark.parametrize("decomposed", [False, True])
def test_dropout_is_off_in_evaluation(position, decomposed):
    made, x = layer(dropout_position=position, decomposed=decomposed), torch.randn(5, 16)
    assert not torch.equal(made(x), made(x))
    made.eval()
    assert torch.equal(made(x), made(x))


def test_dropout_before_dora_is_that_of_peft():
    both = pair("llama", AdapterSpec(dim=4, alpha=10, decomposed=True, dropout=0.3, dropout_position="pre"))
    found = []
    for model in (both.ours, both.theirs):
        model.train()
        torch.manual_seed(11)
        found.append(logits(model))

    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_the_base_may_have_a_narrower_type():
    both = pair("llama", KINDS["dora"])
    for parameter in both.ours.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(torch.bfloat16)

    found = logits(both.ours)

    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), logits(both.theirs), rtol=0.1, atol=0.05)
    assert all(module.lora_A.weight.dtype == torch.float32 for module in adapted_modules(both.ours).values())
