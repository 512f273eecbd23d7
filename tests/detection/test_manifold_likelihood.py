"""The scores of a manifold with a closed form: a plane with a normal on it."""

import math

import pytest
import torch

from pushforward import distributions, models, transforms
from pushforward.detection.scores import ManifoldLikelihood
from pushforward.errors import ConfigError, InputError, KindError


@pytest.fixture
def plane() -> models.Model:
    return models.Flow(transforms.Pad(5, 2), distributions.Normal(2)).double()


def rows(count: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return x * torch.tensor([1.0, 1.0, 0.1, 0.1, 0.1], dtype=torch.float64)


def test_parts(plane):
    x = rows(7)
    density = 0.5 * x[:, :2].square().sum(-1) + math.log(2 * math.pi)
    torch.testing.assert_close(ManifoldLikelihood(plane, use="density")(x), density)
    torch.testing.assert_close(ManifoldLikelihood(plane, use="residual")(x), x[:, 2:].square().sum(-1))


def test_both_is_the_density_of_a_plane_with_normal_noise_across(plane):
    score = ManifoldLikelihood(plane).fit(rows(20_000, seed=1))
    assert score.variance.item() == pytest.approx(0.01, rel=0.02)
    x = rows(50, seed=2)
    noise = torch.distributions.Normal(0.0, score.variance.sqrt()).log_prob(x[:, 2:]).sum(-1)
    flat = torch.distributions.Normal(0.0, 1.0).log_prob(x[:, :2]).sum(-1)
    constant = 1.5 * math.log(2 * math.pi * score.variance.item())
    torch.testing.assert_close(score(x), -(flat + noise) - constant)


def test_rows_on_the_manifold_give_a_finite_score(plane):
    x = rows(100)
    x[:, 2:] = 0.0
    score = ManifoldLikelihood(plane).fit(x)
    assert torch.isfinite(score(x)).all()
    x[0, 4] = 1e-3
    assert score(x)[0] > score(x)[1:].max() + 1e3


def test_errors_of_arguments(plane):
    with pytest.raises(KindError, match="Lebesgue"):
        ManifoldLikelihood(models.NICE(2))
    with pytest.raises(ConfigError, match="use must be"):
        ManifoldLikelihood(plane, use="distance")


def test_a_flow_on_the_sphere_has_no_distance_to_it():
    sphere = models.Flow(transforms.SphereCoupling(3), distributions.UniformSphere(3))
    x = torch.nn.functional.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    with pytest.raises(KindError, match="no distance to its manifold: use a model with a residual"):
        ManifoldLikelihood(sphere, use="density")(x)


def test_an_infinite_reference_row_is_refused(plane):
    reference = rows(50)
    reference[3, 4] = math.inf
    with pytest.raises(InputError, match="the distance to the manifold is infinite in row 3 of the reference"):
        ManifoldLikelihood(plane).fit(reference)
