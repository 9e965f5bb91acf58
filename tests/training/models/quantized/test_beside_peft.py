"""A base in 4 bit computes what peft over bitsandbytes computes: weights, outputs, gradients of adapters."""

from __future__ import annotations

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit

from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.config.quantization import QuantizationSpec
from skills_pipe.training.models.quantized import QuantizedLinear, QuantizedMatrix, quantized_matrices
from tests.training.models.lora.test_linear import IDS, assert_same_values, logits, train
from tests.training.models.quantized.peft_models import WIDE, bitsandbytes_model, ours, pair, whole_model
from tests.training.tiny import save_tiny_model

LORA = AdapterSpec(dim=4, alpha=10)
SPECS = {
    "nf4": QuantizationSpec(),
    "nf4 double": QuantizationSpec(double=True),
    "fp4": QuantizationSpec(values="fp4"),
    "fp4 double": QuantizationSpec(values="fp4", double=True),
}
ADAPTERS = {
    "lora": LORA,
    "dora": AdapterSpec(dim=4, alpha=10, decomposed=True),
    "some layers": AdapterSpec(dim=2, alpha=3, targets=("q_proj", "*.1.mlp.*")),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of models by their family."""
    made = {}

    def folder(architecture):
        if architecture not in made:
            made[architecture] = save_tiny_model(tmp_path_factory.mktemp(architecture), architecture, **WIDE)
        return made[architecture]

    return folder


@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_have_the_bits_of_bitsandbytes(folders, kind, dtype):
    model = ours(folders("llama"), SPECS[kind], LORA, dtype)
    reference = bitsandbytes_model(folders("llama"), SPECS[kind])

    matrices = quantized_matrices(model)
    assert len(matrices) == 14
    for name, matrix in matrices.items():
        theirs = reference.get_parameter(name)
        assert torch.equal(matrix.packed.reshape(-1, 1), theirs.data), name
        assert torch.equal(matrix.dense(), dequantize_4bit(theirs.data, theirs.quant_state).to(dtype)), name


@pytest.mark.parametrize(
    ("architecture", "adapters", "kind"),
    [
        *(("llama", adapters, kind) for adapters in ADAPTERS for kind in SPECS),
        *((family, adapters, "nf4 double") for family in ("qwen2", "qwen3", "gemma2") for adapters in ADAPTERS),
        ("phi3", "lora", "nf4"),
        ("phi3", "dora", "nf4 double"),
    ],
)
def test_outputs_and_gradients_are_those_of_peft(folders, architecture, adapters, kind):
    both = pair(folders(architecture), SPECS[kind], ADAPTERS[adapters])

    torch.testing.assert_close(logits(both.ours), logits(both.theirs), rtol=1e-5, atol=1e-5)
    for model in (both.ours, both.theirs):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    assert_same_values(both, lambda parameter: parameter.grad, 1e-5)


def test_training_goes_where_that_of_peft_goes(folders):
    both = pair(folders("llama"), SPECS["nf4 double"], LORA)

    assert train(both.ours, 5) == pytest.approx(train(both.theirs, 5), rel=1e-5)
    assert_same_values(both, torch.Tensor.detach, 1e-3)


OTHERS = {
    "other values": lambda folder: bitsandbytes_model(folder, QuantizationSpec(values="fp4")),
    "scales in 8 bit": lambda folder: bitsandbytes_model(folder, QuantizationSpec(double=True)),
    "other blocks": lambda folder: bitsandbytes_model(folder, QuantizationSpec(), block=32),
    "not quantized": whole_model,
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_base_would_be_noticed(folders, other):
    both = pair(folders("llama"), SPECS["nf4"], LORA, theirs=OTHERS[other](folders("llama")))

    assert (logits(both.ours) - logits(both.theirs)).abs().max() > 1e-4
    for model in (both.ours, both.theirs):
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    with pytest.raises(AssertionError):
        assert_same_values(both, lambda parameter: parameter.grad, 1e-4)


def test_layers_without_an_adapter_are_in_4_bit_too(folders):
    model = ours(folders("llama"), SPECS["nf4"], ADAPTERS["some layers"])
    plain = [name for name, module in model.named_modules() if type(module) is QuantizedLinear]
    assert len(plain) == 9
    assert all(isinstance(model.get_submodule(name).weight, QuantizedMatrix) for name in plain)
    assert type(model.lm_head) is torch.nn.Linear


def test_nothing_dense_is_kept_for_the_backward_pass(folders):
    model = ours(folders("llama"), SPECS["nf4"], LORA)
    shapes = []

    def keep(saved):
        shapes.append(tuple(saved.shape))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        logits(model)
    matrices = {(matrix.rows, matrix.columns) for matrix in quantized_matrices(model).values()}
    assert shapes
    assert not (matrices | {(columns, rows) for rows, columns in matrices}) & set(shapes)


def test_a_new_adapter_changes_nothing(folders):
    for dtype in (torch.float32, torch.bfloat16):
        found = []
        for spec in ADAPTERS.values():
            with torch.no_grad():
                found.append(logits(ours(folders("qwen2"), SPECS["nf4 double"], spec, dtype)))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])
