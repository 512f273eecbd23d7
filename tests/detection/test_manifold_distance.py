"""Density and residual as scores, on a line in the plane with a normal distribution along it."""

import math

import pytest
import torch

from pushforward import distributions, models, transforms
from pushforward.detection import auroc
from pushforward.detection.scores import DensityAndDistance, Likelihood, ManifoldDistance
from pushforward.errors import KindError


def line() -> models.TwoStep:
    """x = (z, 0), z normal."""
    model = models.TwoStep(
        models.AutoEncoder(2, latent=1, hidden=()), models.Flow(transforms.Affine(1), distributions.Normal(1))
    )
    codec = model.autoencoder.chain.transforms[1].codec
    with torch.no_grad():
        for layer, weight in ((codec.encoder.last, [[1.0, 0.0]]), (codec.decoder.last, [[1.0], [0.0]])):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.zero_()
    return model.double().eval()


def rows(count: int, seed: int) -> torch.Tensor:
    """Near the line: distance 0.1."""
    return torch.randn(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * torch.tensor(
        [1.0, 0.1]
    )


def test_values():
    x = torch.tensor([[0.0, 2.0], [1.0, 0.0], [math.inf, 0.0]], dtype=torch.float64)
    assert ManifoldDistance(line())(x).tolist() == [4.0, 0.0, math.inf]
    torch.testing.assert_close(
        Likelihood(line())(x[:2]), torch.tensor([0.0, 0.5], dtype=torch.float64) + 0.5 * math.log(2 * math.pi)
    )


def test_both_together_by_hand():
    x, y = rows(300, 0), rows(5, 1)
    score = DensityAndDistance(line()).fit(x)
    density, distance = 0.5 * x[:, 0].square(), x[:, 1].square().log()
    expected = (0.5 * y[:, 0].square() - density.mean()) / density.std(correction=0)
    expected = expected + (y[:, 1].square().log() - distance.mean()) / distance.std(correction=0)
    torch.testing.assert_close(score(y), expected)
    on = score(torch.tensor([[0.0, 0.0]], dtype=torch.float64))  # no distance at all: its logarithm has a floor
    assert -math.inf < on.item() < score(x).min().item()
    assert score(torch.tensor([[1e200, 0.0], [math.inf, 0.0]], dtype=torch.float64)).tolist() == [math.inf, math.inf]


def test_each_score_detects_what_the_other_misses():
    normal = rows(500, 2)
    along = normal + torch.tensor([4.0, 0.0])
    across = normal + torch.tensor([0.0, 0.6])
    density, residual, both = Likelihood(line()), ManifoldDistance(line()), DensityAndDistance(line()).fit(rows(300, 3))
    assert auroc(density(normal), density(along)) > 0.95
    assert auroc(residual(normal), residual(across)) > 0.95
    assert auroc(density(normal), density(across)) == 0.5  # they decode to the same points
    assert auroc(residual(normal), residual(along)) == 0.5
    assert min(auroc(both(normal), both(along)), auroc(both(normal), both(across))) > 0.85


def test_a_model_without_a_manifold_is_refused():
    for score in (ManifoldDistance, DensityAndDistance):
        with pytest.raises(KindError, match="residual"):
            score(models.NICE(2)).fit(torch.zeros(3, 2)).values(torch.zeros(3, 2))
