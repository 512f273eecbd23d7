"""Training on rows outside the model's domain names the domain."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward import distributions, models, transforms
from pushforward.errors import TrainingError
from pushforward.training import fit
from pushforward.training.outside_rows import rows_outside


def circular() -> models.Flow:
    coupling = transforms.Coupling(2, transforms.CircularSplineTransformer(), hidden=(8,))
    return models.Flow(coupling, distributions.VonMises(2))


def mises() -> models.Flow:
    return models.Flow(transforms.Reverse(2), distributions.VonMises(2, trainable=True))


def sphere() -> models.Flow:
    return models.Flow(transforms.SphereCoupling(3, hidden=(8,)), distributions.UniformSphere(3))


DEGREES = 360 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("make", [circular, mises, lambda: models.NSF(2, circular=True, layers=2, hidden=(8,))])
def test_angles_outside_the_domain_name_it_and_the_remedy(make) -> None:
    with pytest.raises(TrainingError, match=r"outside \[-pi, pi\], the domain of .*radians.*torch\.remainder"):
        fit(make(), DEGREES, max_steps=3, progress="silent")
    inside = torch.remainder(torch.deg2rad(DEGREES) + math.pi, 2 * math.pi) - math.pi  # what the error says
    assert rows_outside(make(), inside) == ""
    fit(make(), inside, max_steps=3, progress="silent")


def test_vectors_off_the_sphere_name_it() -> None:
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(TrainingError, match="sphere of radius 1"):
        fit(sphere(), x, max_steps=3, progress="silent")
    fit(sphere(), x / x.norm(dim=1, keepdim=True), max_steps=3, progress="silent")


def test_the_count_and_one_coordinate_are_those_of_the_batch() -> None:
    x = torch.tensor([[0.5, 0.5], [0.5, 1.75], [0.0, 1.0]])
    unit = models.Flow(transforms.Logit(2), distributions.Normal(2))
    assert rows_outside(unit, x).startswith(
        "1 of 3 rows lies outside (0, 1), the domain of Flow (one coordinate is 1.75)"
    )
    assert rows_outside(models.RealNVP(2), 1e6 * x) == ""


@pytest.mark.parametrize("make", [models.Glow, models.PixelCNN])
def test_pixels_that_were_divided_are_named(make) -> None:
    small = {"filters": 4, "layers": 1} if make is models.PixelCNN else {"scales": 1, "layers": 1, "hidden": (4, 4)}
    model = make((1, 4, 4), **small)
    x = torch.randint(0, 256, (100, 1, 4, 4), generator=torch.Generator().manual_seed(0)) / 255
    words = r"model of the integers of \(0, 255\), and \d+ of \d+ rows have fractions .*: give .* torch\.round\(255 \* x\) if"
    with pytest.raises(TrainingError, match=words):
        fit(model, x, max_steps=3, progress="silent")
    assert rows_outside(model, torch.round(255 * x)) == ""
    fit(model, torch.round(255 * x), max_steps=3, progress="silent")
