"""Sampling by noise draws from the very softmax, for each row by itself."""

import pytest
import torch

from skills_pipe.evaluation.clients.rows import RowLimits, RowNoise

PROBABILITIES = torch.tensor([0.5, 0.3, 0.15, 0.05, 0.0])
ROWS = 4000


def test_shares_of_samples_are_the_probabilities():
    noise = RowNoise(0, range(ROWS))
    counts = torch.zeros(5)
    for _ in range(3):
        samples = noise(None, PROBABILITIES.log().expand(ROWS, 5)).argmax(-1)
        counts += samples.bincount(minlength=5)
    # Four standard deviations of a share p over n draws are 4 sqrt(p (1 - p) / n) <= 0.019 here.
    assert counts.tolist() == pytest.approx((PROBABILITIES * 3 * ROWS).tolist(), abs=0.019 * 3 * ROWS)
    assert counts[4] == 0
    # Negative control: without the logarithm of the noise the shares are wrong.
    careless = (PROBABILITIES.log() + torch.empty(ROWS, 5).exponential_()).argmax(-1).bincount(minlength=5) / ROWS
    assert abs(careless[0].item() - 0.5) > 0.03


def test_a_row_s_noise_depends_on_seed_and_position_only():
    scores = torch.zeros(3, 50)
    together = RowNoise(7, [4, 9, 2])(None, scores)
    alone = RowNoise(7, [9])(None, scores[:1])
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(RowNoise(8, [9])(None, scores[:1]), alone)


def test_noise_goes_on_from_step_to_step():
    noise = RowNoise(0, [0])
    assert not torch.equal(noise(None, torch.zeros(1, 50)), noise(None, torch.zeros(1, 50)))


def test_each_row_ends_at_its_own_length():
    limits = RowLimits(10, [1, 3, 2])
    ended = [limits(torch.zeros(3, 10 + new, dtype=torch.long), None).tolist() for new in (1, 2, 3)]
    assert ended == [[True, False, False], [True, False, True], [True, True, True]]
