"""NEFTune's noise: its size beside transformers' hook, per document in packed rows, and only while training."""

import pytest
import torch
from transformers.integrations.neftune import activate_neftune

from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.embedding_noise import with_noise
from skills_pipe.training.models.loss import SupervisedLoss
from tests.training.tiny import tiny_model


def documents(*lengths):
    ends = torch.tensor([0, *lengths]).cumsum(0)
    return Documents.of(ends.to(torch.int32))


@pytest.mark.parametrize("alpha", [5.0, 15.0])
def test_for_one_document_it_is_what_transformers_adds(alpha):
    model = tiny_model()
    ids = torch.arange(5, 45)[None]
    plain = model.get_input_embeddings()(ids).detach()
    activate_neftune(model, alpha)
    model.train()
    torch.manual_seed(7)
    theirs = model.get_input_embeddings()(ids).detach()
    torch.manual_seed(7)
    ours = with_noise(plain, documents(40), alpha)

    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(ours, plain, atol=1e-3)


def test_in_a_packed_row_each_document_has_the_noise_of_its_own_length():
    zeros = torch.zeros(1, 500, 64)
    noise = with_noise(zeros, documents(100, 400), 5.0)[0]

    for part, length in ((noise[:100], 100), (noise[100:], 400)):
        bound = 5.0 / (length * 64) ** 0.5
        assert 0.99 * bound < part.abs().max() <= bound
        assert part.std() == pytest.approx(bound / 3**0.5, rel=0.03)


def loss_of(module):
    row = torch.arange(5, 45)[None]
    return float(module(row, torch.arange(40)[None], row, documents(40), scale=1.0))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_it_is_there_while_training_and_not_in_validation(architecture):
    plain = loss_of(SupervisedLoss(tiny_model(architecture).train()))
    noisy = SupervisedLoss(tiny_model(architecture), noise=50.0)
    noisy.model.train()
    torch.manual_seed(1)
    first, second = loss_of(noisy), loss_of(noisy)
    noisy.model.eval()

    assert len({plain, first, second}) == 3
    assert loss_of(noisy) == pytest.approx(plain, rel=1e-6)
