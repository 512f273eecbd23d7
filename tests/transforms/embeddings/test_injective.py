"""Bijections of zero-padded codes, and unconstrained networks, as embeddings."""

import math

import pytest
import torch
from torch import Tensor

from pushforward import distributions, models, transforms
from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import Kind, Lebesgue, Manifold


def rows(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flow(features: int, *, context: int = 0, transformer: transforms.Transformer | None = None) -> transforms.Chain:
    torch.manual_seed(0)
    parts = [
        transforms.Coupling(features, transformer, hidden=(8,), flip=k % 2 == 1, context=context) for k in range(3)
    ]
    chain = transforms.Chain(transforms.Affine(features, scale=2.0), *parts, transforms.Householder(features))
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return chain.double()


def log_volume(function, z: Tensor) -> Tensor:
    jacobian = torch.stack([torch.autograd.functional.jacobian(function, row).reshape(-1, row.numel()) for row in z])
    return 0.5 * torch.linalg.slogdet(jacobian.mT @ jacobian)[1]


@pytest.mark.parametrize("latent", [1, 3, 5])
@pytest.mark.parametrize(
    "transformer", [transforms.AffineTransformer(), transforms.SplineTransformer(6)], ids=["affine", "spline"]
)
def test_contribution_is_minus_half_the_log_determinant_of_the_gram_matrix(transformer, latent):
    layer = transforms.Injective(flow(5, transformer=transformer), latent).double()
    x = rows(6, 5)
    step = layer.encode(x)
    torch.testing.assert_close(step.contribution, -log_volume(layer.decode, step.z), rtol=1e-8, atol=1e-8)
    again = layer.encode(layer.decode(step.z))
    torch.testing.assert_close(again.z, step.z, rtol=1e-8, atol=1e-8)
    if latent < 5:
        assert layer.measure(Lebesgue(latent)) == Manifold(latent, 5)
        torch.testing.assert_close(step.residual, (x - layer.decode(step.z)).square().sum(-1))
        assert (again.residual < 1e-16).all()
    else:
        assert layer.measure(Lebesgue(5)) == Lebesgue(5)
        torch.testing.assert_close(step.contribution, layer.transform.encode(x).contribution, rtol=1e-8, atol=1e-8)


def test_with_every_coordinate_kept_it_is_the_flow_itself():
    chain = flow(3)
    whole = models.Flow(transforms.Injective(chain, 3), distributions.Normal(3)).double()
    plain = models.Flow(chain, distributions.Normal(3)).double()
    x = rows(5, 3)
    torch.testing.assert_close(whole.log_prob(x), plain.log_prob(x), rtol=1e-8, atol=1e-8)


def test_the_manifold_depends_on_the_context():
    layer = transforms.Injective(flow(3, context=2), 2).double()
    x, context = rows(4, 3), rows(4, 2, seed=1)
    assert not torch.allclose(layer.encode(x, context).contribution, layer.encode(x, -context).contribution)


def test_the_length_of_a_curve():
    """With a uniform code the density is 1 / speed, so it integrates to 1 along the curve by arc length."""
    layer = transforms.Injective(flow(2), 1).double()
    model = models.Flow(layer, distributions.Uniform(1, -1.0, 1.0)).double()
    z = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[:, None]
    x = layer.decode(z).detach()
    density = model.evaluate(0.5 * (x[1:] + x[:-1])).value.exp()
    lengths = (x[1:] - x[:-1]).norm(dim=-1)
    assert (density * lengths).sum().item() == pytest.approx(1.0, abs=1e-3)
    assert lengths.sum().item() != pytest.approx(2.0, abs=0.1)


ITERATIVE = {
    "residual": lambda: transforms.InvertibleResidual(3, hidden=(8,), log_det="exact"),
    "Sylvester": lambda: transforms.Sylvester(3, 2),
    "planar": lambda: transforms.Planar(3),
    "Gaussianize": lambda: transforms.Gaussianize(3),
    "block": lambda: transforms.BlockAutoregressive(3),
    "Bernstein": lambda: transforms.Coupling(3, transforms.BernsteinTransformer(), hidden=(8,)),
    "cubic": lambda: transforms.Coupling(3, transforms.CubicSplineTransformer(), hidden=(8,)),
    "sigmoidal": lambda: transforms.Coupling(3, transforms.SigmoidalTransformer(), hidden=(8,)),
    "squares": lambda: transforms.Coupling(3, transforms.SumOfSquaresTransformer(), hidden=(8,)),
    "unconstrained": lambda: transforms.Coupling(3, transforms.UnconstrainedMonotoneTransformer(), hidden=(8,)),
}


@pytest.mark.parametrize("make", ITERATIVE.values(), ids=ITERATIVE.keys())
def test_gradient_of_the_volume_through_an_iterative_inverse(make):
    """Along a random direction of the weights, against central differences of the volume."""
    torch.manual_seed(0)
    inner = make()
    inner.initialize(torch.randn(100, 3))
    layer = transforms.Injective(
        transforms.Chain(transforms.Householder(3), inner, transforms.Householder(3, seed=3)).double(), 2
    )
    z, weights = rows(4, 2), list(layer.parameters())
    with torch.no_grad():
        for weight in weights:
            weight.add_(0.3 * torch.randn_like(weight))
    direction = [torch.randn_like(weight) for weight in weights]
    slopes = torch.autograd.grad(layer.decode_with_volume(z)[1].sum(), weights, allow_unused=True)
    found = sum((a * b).sum().item() for a, b in zip(slopes, direction, strict=True) if a is not None)

    def moved(size: float) -> float:
        with torch.no_grad():
            for weight, way in zip(weights, direction, strict=True):
                weight.add_(size * way)
            return layer.decode_with_volume(z)[1].sum().item()

    step = 1e-5
    expected = (moved(step) - moved(-2 * step)) / (2 * step)
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_rows_outside_the_domain_are_impossible():
    chain = transforms.Chain(transforms.Logit(2), transforms.Householder(2))
    layer = transforms.Injective(chain, 1).double()
    step = layer.encode(torch.tensor([[0.5, 0.2], [1.5, 0.2]], dtype=torch.float64))
    assert torch.isfinite(step.contribution[0])
    assert step.contribution[1] == -math.inf


def test_errors_of_injective():
    with pytest.raises(KindError, match="not a bijection"):
        transforms.Injective(transforms.Pad(3, 2), 1)
    with pytest.raises(KindError, match="not a bijection"):
        transforms.Injective(transforms.UniformDequantize(2), 1)
    with pytest.raises(ConfigError, match="image of transform"):
        transforms.Injective(transforms.Sigmoid(2), 1)
    with pytest.raises(ConfigError, match="latent of Injective must be an integer from 1 to 2"):
        transforms.Injective(transforms.Affine(2), 3)
    with pytest.raises(ConfigError, match="got int"):
        transforms.Injective(2, 1)  # pyright: ignore[reportArgumentType]


def test_free_networks_are_an_estimate_with_the_scale_of_the_data_in_the_volume():
    torch.manual_seed(0)
    layer = transforms.FreeFormEmbedding(4, 2, hidden=(8,)).double()
    x = 10 * rows(200, 4) + 3
    x[:, 3] = 5.0  # a constant column keeps scale 1
    layer.initialize(x)
    step = layer.encode(x[:5])
    assert layer.kind is Kind.ESTIMATE
    torch.testing.assert_close(step.contribution, -log_volume(layer.decode, step.z), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(step.residual, (x[:5] - layer.decode(step.z)).square().sum(-1))
    assert layer.scaler.scale[3].item() == 1.0
