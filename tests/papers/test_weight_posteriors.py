"""The scores of several models, the likelihood that is no density, and the noise of the denoising runs."""

import math

import pytest
import torch
import torch.nn.functional as F

from papers.autoencoders.weight_posteriors import GrayBernoulli, spreads
from papers.claims.aef import noisy


def test_scores_of_a_hand_made_case():
    values = torch.tensor([[0.0, -1.0], [0.0, -3.0]], dtype=torch.float64)  # two models, two rows
    found = spreads(values, center=-1.0)
    w = math.exp(2) / (1 + math.exp(2))  # the weight of the first model for the second row
    expected = {
        "disagreement": [-2.0, -1 / (w**2 + (1 - w) ** 2)],
        "expected LL": [0.0, 2.0],
        "entropy": [-math.log(2), w * math.log(w) + (1 - w) * math.log(1 - w)],
        "WAIC": [0.0, 3.0],
        "std": [0.0, 1.0],
        "typicality": [1.0, 1.0],
    }
    assert found.keys() == expected.keys()
    for name, numbers in expected.items():
        assert found[name].tolist() == pytest.approx(numbers), name


def test_the_gray_bernoulli_is_the_cross_entropy_and_does_not_sum_to_one():
    raw = torch.linspace(-3, 3, 7, dtype=torch.float64)
    levels = torch.arange(256, dtype=torch.float64)
    found = GrayBernoulli().log_prob(levels[:, None], raw[None])
    expected = -F.binary_cross_entropy_with_logits(
        raw.expand(256, 7), (levels / 255)[:, None].expand(256, 7), reduction="none"
    )
    assert torch.allclose(found, expected)
    assert (found.exp().sum(0) > 10).all()


def test_noise_keeps_the_range_and_has_its_size():
    images = torch.full((400, 1, 8, 8), 128, dtype=torch.uint8)
    small, large = noisy(images, 10.0, 0), noisy(images, 255.0, 0)
    assert small.dtype == images.dtype
    assert small.double().std().item() == pytest.approx(math.sqrt(100 + 1 / 12), rel=0.03)  # and rounding
    assert (int(large.min()), int(large.max())) == (0, 255)
    assert torch.equal(small, noisy(images, 10.0, 0))
