"""Rows beyond the numbers of float32 are far for scores of latent variables too."""

from __future__ import annotations

import pytest
import torch

import pushforward as pf
from pushforward.detection.scores import GeneralModelRatio, LatentMahalanobis, LatentNeighbors, LatentNorm


@pytest.fixture(scope="module")
def models():
    rows = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        found.append(pf.models.NSF(2, layers=2, hidden=(8,)))
        pf.fit(found[-1], rows, max_steps=5, seed=seed, progress="silent")
    return rows.double(), found


@pytest.mark.parametrize("score", [LatentMahalanobis, LatentNeighbors, LatentNorm, GeneralModelRatio])
@pytest.mark.parametrize("value", [1e30, 4e38, 1.797e308, -1.797e308])
def test_the_largest_numbers_of_float64_are_far(models, score, value):
    rows, (first, second) = models
    fitted = score(first, second) if score is GeneralModelRatio else score(first)
    fitted.fit(rows)
    far = torch.tensor([[0.0, 0.0], [value, 0.0]], dtype=torch.float64)
    near, found = fitted(far).tolist()
    assert found > 1e10 > near


def test_an_encoding_is_not_that_of_the_origin(models):
    _, (model, _) = models
    far = torch.tensor([[0.0, 0.0], [4e38, 0.0]], dtype=torch.float64)
    z = model.encode(far)
    assert torch.isfinite(z).all()
    assert z[1].norm() > 1e10 * z[0].norm()
    assert model.log_prob(far)[1] == -torch.inf
