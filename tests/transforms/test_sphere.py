"""The sphere: surface area, the poles, mass by quadrature, samples, and a target of known density."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import pushforward as pf
from pushforward.distributions import UniformSphere, VonMisesFisher
from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import Manifold
from pushforward.models import Flow
from pushforward.transforms import (
    Chain,
    CircularSplineTransformer,
    Householder,
    Inverse,
    MobiusTransformer,
    SphereAutoregressive,
    SphereCoupling,
    SplineTransformer,
)

SMALL = CircularSplineTransformer(bins=4)


def unit(count: int, seed: int = 0) -> Tensor:
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True)


def stack(layers: int, base, transformer=SMALL, hidden: tuple[int, ...] = (16,), bins: int = 4) -> Flow:
    parts = []
    for k in range(layers):
        parts += [Householder(3, seed=k), SphereAutoregressive(3, transformer, bins=bins, hidden=hidden)]
    return Flow(Chain(*parts), base)


def quadrature(count: int) -> tuple[Tensor, Tensor]:
    """Points and areas: Gauss-Legendre in height, the trapezoid rule in the angle."""
    heights, weights = np.polynomial.legendre.leggauss(count)
    angles = 2 * math.pi * torch.arange(2 * count, dtype=torch.float64) / (2 * count)
    h, a = torch.meshgrid(torch.from_numpy(heights), angles, indexing="ij")
    r = torch.sqrt(1 - h * h)
    area = torch.from_numpy(weights)[:, None].expand_as(h) * (math.pi / count)
    return torch.stack((r * a.cos(), r * a.sin(), h), -1).reshape(-1, 3), area.flatten()


@pytest.mark.parametrize("transformer", [SMALL, MobiusTransformer(components=2)], ids=["spline", "mobius"])
def test_contract(transformer, check):
    torch.manual_seed(0)
    transform = check.perturb(SphereAutoregressive(3, transformer, bins=4, hidden=(8,))).double()
    for spread in (1.0, 50.0, 1e6, 1e20):
        check.round_trip(transform, check.normal(50, 3, spread=spread), 1e-10)
    check.contribution(transform, check.normal(5, 3))
    check.contribution(Inverse(transform), check.normal(5, 3))
    check.decode_contribution(transform, check.normal(5, 3))
    check.shapes(transform.float())
    check.extremes(transform)


def test_the_contribution_is_that_of_surface_area(check):
    """1/2 log det J^T J of the transform of the sphere to itself, in an orthonormal frame of the tangent plane."""
    torch.manual_seed(0)
    transform = check.perturb(SphereAutoregressive(hidden=(8,))).double()
    for x in unit(5):
        jacobian = torch.autograd.functional.jacobian(lambda t: transform.encode(t).z, x)
        frame = torch.linalg.svd(x[None])[2][1:].mT
        tangent = jacobian @ frame
        expected = 0.5 * torch.logdet(tangent.mT @ tangent)
        assert transform.encode(x).contribution.item() == pytest.approx(expected.item(), abs=1e-9)
        assert transform.encode(x).z.norm().item() == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("radius", [0.0, 1e-30, 1e-12, 1e-7, 1e-5, 1e-3])
def test_near_the_poles_it_is_the_identity_and_finite(radius, dtype, check):
    torch.manual_seed(0)
    transform = check.perturb(SphereAutoregressive(hidden=(8,))).to(dtype)
    for pole in (1.0, -1.0):
        x = torch.tensor([[radius * 0.6, -radius * 0.8, pole]], dtype=dtype, requires_grad=True)
        step = transform.encode(x)
        torch.testing.assert_close(step.z, x, atol=100 * radius**2 + 1e-12, rtol=1e-6)
        assert abs(step.contribution.item()) < 1e2 * radius + 1e-6
        gradients = torch.autograd.grad(step.z.sum() + step.contribution.sum(), [x, *transform.parameters()])
        assert all(torch.isfinite(g).all() for g in gradients)
        torch.testing.assert_close(
            transform.decode(step.z), x, atol=1e-8 if dtype is torch.float64 else 1e-6, rtol=1e-6
        )


@pytest.mark.parametrize(
    "base", [UniformSphere(3), VonMisesFisher(mean=(1.0, -1.0, 0.5), concentration=3.0)], ids=["uniform", "vMF"]
)
def test_mass_is_one_and_samples_follow(base, check):
    torch.manual_seed(0)
    model = check.perturb(stack(2, base), size=0.25).double()
    x, area = quadrature(200)
    with torch.no_grad():
        result = model.evaluate(x)
        density = result.value.exp()
        samples = model.sample(20_000, seed=0)
    assert result.measure == Manifold(2, 3)
    assert (density * area).sum().item() == pytest.approx(1.0, abs=1e-3)
    assert density.max() > 3 * density.min()
    torch.testing.assert_close(samples.norm(dim=-1), torch.ones(20_000, dtype=torch.float64))
    # Moments up to the second degree, of samples and by quadrature.
    for i in range(3):
        for f in (lambda t, i=i: t[:, i], lambda t, i=i: t[:, i] ** 2, lambda t, i=i: t[:, i] * t[:, (i + 1) % 3]):
            expected = (f(x) * density * area).sum().item()
            seen = f(samples)
            assert abs(seen.mean().item() - expected) < 4.5 * seen.std().item() / math.sqrt(len(samples))
    with pytest.raises(KindError, match="Manifold"):
        model.log_prob(x)


def test_the_density_does_not_depend_on_the_direction_to_a_pole_or_across_the_seam(check):
    torch.manual_seed(0)
    model = check.perturb(Flow(SphereAutoregressive(hidden=(8,)), UniformSphere(3))).double()
    angle = torch.linspace(0, 6, 7, dtype=torch.float64)
    r = 1e-6
    ring = torch.stack((r * angle.cos(), r * angle.sin(), torch.ones(7, dtype=torch.float64)), -1)
    value = model.evaluate(ring).value
    torch.testing.assert_close(value, value[:1].expand(7), atol=1e-4, rtol=0)
    seam = torch.tensor([[-0.8, 1e-9, 0.6], [-0.8, -1e-9, 0.6]], dtype=torch.float64)
    value = model.evaluate(seam).value
    torch.testing.assert_close(value[0], value[1], atol=1e-6, rtol=0)


def test_off_the_sphere_there_is_no_mass():
    model = stack(1, UniformSphere(3))
    value = model.evaluate(torch.tensor([[0.6, 0.0, 0.8], [0.6, 0.0, 0.9], [0.0, 0.0, 0.0], [1e20, 0.0, 0.0]])).value
    assert torch.isfinite(value[0])
    assert (value[1:] == -math.inf).all()


def mixture_of_fishers(x: Tensor) -> Tensor:
    """Log-density of an even mixture of three von Mises-Fisher distributions of concentration 20, from its formula."""
    poles = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8], [-0.6, 0.0, -0.8]], dtype=x.dtype)
    kappa = 20.0
    each = kappa * (x @ poles.mT) + math.log(kappa / (4 * math.pi * math.sinh(kappa)))
    return torch.logsumexp(each, -1) - math.log(3)


def draw_mixture(count: int, seed: int) -> Tensor:
    """By rejection from the uniform distribution: independent of the library's own sampler."""
    x = unit(60 * count, seed)
    u = torch.rand(len(x), generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    top = 20 / (4 * math.pi * math.sinh(20)) * math.exp(20) / 3 * 1.001
    return x[u * top < mixture_of_fishers(x).exp()][:count]


@pytest.mark.slow
def test_a_mixture_of_three_modes_is_learned():
    """KL below 0.03 nats and total variation below 0.08, against the density itself."""
    train, test = draw_mixture(8000, 0), draw_mixture(4000, 10)
    assert len(train) == 8000
    torch.manual_seed(0)
    model = stack(4, UniformSphere(3), CircularSplineTransformer(), (32, 32), bins=8)
    pf.fit(model, train.float(), epochs=60, learning_rate=5e-3, seed=0, progress="silent")
    model.double()
    with torch.no_grad():
        loss = (mixture_of_fishers(test) - model.evaluate(test).value).mean().item()
        x, area = quadrature(100)
        density = model.evaluate(x).value.exp()
    assert (density * area).sum().item() == pytest.approx(1.0, abs=0.01)
    assert loss < 0.03
    assert 0.5 * ((density - mixture_of_fishers(x).exp()).abs() * area).sum().item() < 0.08


@pytest.mark.slow
@pytest.mark.parametrize("name", ["volerup.csv", "quakes_all.csv"])
def test_volcanoes_and_earthquakes_are_not_uniform_on_the_earth(name):
    """Held-out mean log-density against a uniform distribution's -2.531: both follow plate borders."""
    root = os.environ.get("PUSHFORWARD_DATA")
    path = Path(root or ".") / "earth" / name
    if root is None or not path.exists():
        pytest.skip("PUSHFORWARD_DATA has no earth/" + name)
    rows = []
    for line in path.read_text().splitlines():
        parts = line.split(",")
        try:
            rows.append((float(parts[0]), float(parts[1])))
        except (ValueError, IndexError):
            continue
    degrees = torch.tensor(rows, dtype=torch.float64)
    latitude, longitude = (degrees * math.pi / 180).unbind(-1)
    assert latitude.abs().max() <= math.pi / 2
    x = torch.stack(
        (latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()), -1
    )[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))].float()  # fmt: skip
    count = len(x) // 5
    test, train = x[:count], x[count:]
    torch.manual_seed(0)
    model = stack(6, UniformSphere(3), CircularSplineTransformer(16), (64, 64), bins=16)
    pf.fit(model, train, validation=0.15, epochs=150, learning_rate=3e-3, seed=0, progress="silent")
    gain = model.evaluate(test).value.mean().item() + math.log(4 * math.pi)
    assert gain > 0.7


def test_impossible_arguments_are_refused():
    with pytest.raises(ConfigError, match="features must be 3"):
        SphereAutoregressive(4)
    with pytest.raises(ConfigError, match="periodic"):
        SphereAutoregressive(3, SplineTransformer())


def test_a_transform_that_changes_distances_is_refused_before_a_sphere():
    with pytest.raises(KindError, match="Standardize changes distances"):
        Flow(pf.transforms.Chain(pf.transforms.Standardize(3), pf.transforms.Householder(3)), UniformSphere(3))
    kept = pf.transforms.Chain(
        pf.transforms.Permutation(3), pf.transforms.Reverse(3), pf.transforms.Inverse(pf.transforms.Householder(3))
    )
    assert Flow(kept, UniformSphere(3)).measure == Manifold(2, 3)


@pytest.mark.parametrize(
    "make",
    [SphereAutoregressive, lambda: Inverse(SphereAutoregressive()), lambda: SphereCoupling(3)],
    ids=["autoregressive", "inverse", "coupling"],
)
def test_another_surface_than_the_sphere_is_refused(make):
    """The contribution is not that of the area of a plane, a circle or a learned surface in R^3."""
    others = [
        pf.transforms.Pad(3, 2),
        pf.transforms.Pad(3, 1),
        Chain(Householder(3), pf.transforms.OrthogonalEmbedding(3, 2)),
        pf.transforms.ConformalEmbedding(pf.transforms.SpecialConformal(3), pf.transforms.Pad(3, 2)),
    ]
    for other in others:
        with pytest.raises(KindError, match="only for densities on a sphere around 0"):
            Flow(Chain(make(), other), pf.distributions.Normal(*other.out_shape))
    whole = Chain(
        Householder(3),
        pf.transforms.Inverse(pf.transforms.Permutation(3)),
        pf.transforms.OrthogonalEmbedding(3),
        make(),
    )
    for base in (UniformSphere(3), VonMisesFisher()):
        assert Flow(Chain(make(), *whole), base).measure == Manifold(2, 3)
    assert Flow(Chain(make(), *whole), pf.distributions.Normal(3)).measure == pf.likelihood.Lebesgue(3)
    circle = Chain(make(), pf.transforms.OrthogonalEmbedding(3, 2))  # a sphere of one dimension, on a plane
    with pytest.raises(KindError, match="only for densities on a sphere around 0"):
        Flow(circle, UniformSphere(2))
