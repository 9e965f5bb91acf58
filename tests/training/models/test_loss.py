from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from skills_pipe.training.models.head import Head
from skills_pipe.training.models.loss import summed_cross_entropy


def problem(rows: int = 19, width: int = 6, vocabulary: int = 11, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(rows, width, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, width, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(vocabulary, (rows,), generator=generator)


@pytest.mark.parametrize("chunk_rows", [1, 7, 256])
def test_gradients_are_those_of_finite_differences(chunk_rows):
    hidden, weight, labels = problem()

    def loss(hidden, weight):
        return summed_cross_entropy(hidden, weight, labels, scale=0.3, chunk_elements=chunk_rows * 11)

    assert torch.autograd.gradcheck(loss, (hidden, weight))


@pytest.mark.parametrize("chunk_rows", [1, 7, 256])
def test_gradients_of_capped_logits_are_those_of_finite_differences(chunk_rows):
    hidden, weight, labels = problem()
    factors = torch.linspace(0, 3, len(labels), dtype=torch.float64)

    def loss(hidden, weight):
        head = Head(softcap=1.5)
        return summed_cross_entropy(
            hidden, weight, labels, scale=0.3, factors=factors, head=head, chunk_elements=chunk_rows * 11
        )

    assert torch.autograd.gradcheck(loss, (hidden, weight))


def test_capped_logits_are_those_of_a_hyperbolic_tangent():
    hidden, weight, labels = problem()
    capped = 1.5 * torch.tanh(hidden @ weight.T / 1.5)
    theirs = cross_entropy(capped, labels, reduction="sum")
    ours = summed_cross_entropy(hidden, weight, labels, head=Head(softcap=1.5))

    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    # The control: without the cap it is another loss.
    assert summed_cross_entropy(hidden, weight, labels).item() != pytest.approx(theirs.item(), rel=1e-2)


@pytest.mark.parametrize("softcap", [None, 1.5])
def test_gradients_of_an_output_layer_that_is_the_embedding_are_those_of_finite_differences(softcap):
    _, weight, labels = problem()
    ids = labels.roll(1)

    def loss(weight):
        return summed_cross_entropy(weight[ids].sin(), weight, labels, scale=0.3, head=Head(softcap=softcap))

    assert torch.autograd.gradcheck(loss, (weight,))


@pytest.mark.parametrize("chunk_rows", [1, 7, 256])
def test_value_and_gradients_equal_torchs_cross_entropy(chunk_rows):
    hidden, weight, labels = problem()
    ours = summed_cross_entropy(hidden, weight, labels, scale=0.3, chunk_elements=chunk_rows * 11)
    theirs = 0.3 * cross_entropy(hidden @ weight.T, labels, reduction="sum")

    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    our_gradients = torch.autograd.grad(ours * 2, (hidden, weight))
    their_gradients = torch.autograd.grad(theirs * 2, (hidden, weight))
    torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-10, atol=1e-12)


class Largest(TorchDispatchMode):
    """Notes the most numbers that any tensor had which was computed meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        made = operation(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


def test_the_logits_of_all_tokens_are_never_there_at_once():
    hidden, weight, labels = problem(rows=640, vocabulary=110)
    with Largest() as chunks:
        summed_cross_entropy(hidden, weight, labels, scale=0.3, chunk_elements=8 * 110).backward()
    assert chunks.numbers < 640 * 110 / 10
    with Largest() as whole:  # the control
        cross_entropy(hidden @ weight.T, labels, reduction="sum").backward()
    assert whole.numbers == 640 * 110


def test_a_bf16_loss_is_summed_in_fp32():
    hidden, weight, labels = problem(rows=4096, width=16, vocabulary=50, dtype=torch.bfloat16)
    logits = (hidden @ weight.T).detach()
    exact = cross_entropy(logits.double(), labels, reduction="sum").item()

    ours = summed_cross_entropy(hidden, weight, labels)

    assert ours.dtype == torch.float32
    assert ours.item() == pytest.approx(exact, rel=1e-5)
    # The control: the same sum in bf16 is off by far more than that.
    assert cross_entropy(logits, labels, reduction="sum").item() != pytest.approx(exact, rel=1e-5)


def test_weight_gradients_of_many_bf16_chunks_are_added_up_in_fp32():
    hidden, weight, labels = problem(rows=2048, width=16, vocabulary=50, dtype=torch.bfloat16)
    exact = problem(rows=2048, width=16, vocabulary=50, dtype=torch.bfloat16)
    exact_weight = exact[1].detach().double().requires_grad_()
    cross_entropy(exact[0].double() @ exact_weight.T, labels, reduction="sum").backward()
    whole = torch.autograd.grad(summed_cross_entropy(hidden, weight, labels), weight)[0]
    chunked = torch.autograd.grad(summed_cross_entropy(hidden, weight, labels, chunk_elements=50), weight)[0]

    assert (chunked - exact_weight.grad).norm() < 1.5 * (whole - exact_weight.grad).norm()


def test_no_supervised_token_gives_zero_and_not_nan():
    hidden, weight, labels = problem(rows=0)
    loss = summed_cross_entropy(hidden, weight, labels)
    loss.backward()

    assert loss.item() == 0.0
    assert hidden.grad.shape == (0, 6)
    assert not weight.grad.any()


def test_nothing_is_differentiated_where_gradients_are_off():
    hidden, weight, labels = problem()
    with torch.no_grad():
        loss = summed_cross_entropy(hidden, weight, labels)

    assert not loss.requires_grad
    assert loss.item() == pytest.approx(cross_entropy(hidden @ weight.T, labels, reduction="sum").item(), rel=1e-12)


@pytest.mark.parametrize("chunk_rows", [1, 7, 256])
def test_factors_weigh_each_label_in_value_and_gradients(chunk_rows):
    hidden, weight, labels = problem()
    factors = torch.linspace(0, 3, len(labels), dtype=torch.float64)
    ours = summed_cross_entropy(hidden, weight, labels, scale=0.3, factors=factors, chunk_elements=chunk_rows * 11)
    theirs = torch.zeros((), dtype=torch.float64)
    for row, label, factor in zip(hidden, labels, factors, strict=True):
        theirs = theirs + 0.3 * factor * -torch.log_softmax(weight @ row, dim=0)[label]

    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    our_gradients = torch.autograd.grad(ours * 2, (hidden, weight))
    their_gradients = torch.autograd.grad(theirs * 2, (hidden, weight))
    torch.testing.assert_close(our_gradients, their_gradients, rtol=1e-10, atol=1e-12)
    # The control: without factors the loss is another one.
    assert summed_cross_entropy(hidden, weight, labels, scale=0.3).item() != pytest.approx(theirs.item(), rel=1e-3)


def test_factors_of_1_change_nothing():
    hidden, weight, labels = problem()
    plain = torch.autograd.grad(summed_cross_entropy(hidden, weight, labels), (hidden, weight))
    ones = torch.autograd.grad(summed_cross_entropy(hidden, weight, labels, factors=torch.ones(19)), (hidden, weight))
    assert all(torch.equal(one, other) for one, other in zip(plain, ones, strict=True))
