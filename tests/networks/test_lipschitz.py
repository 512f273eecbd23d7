"""Networks with a known Lipschitz constant, and Jacobians written out: against singular values and autograd."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.networks import LipschitzConvNet, LipschitzMLP, VelocityMLP
from pushforward.networks.linearized import SLOPED, Linearized, activate, activate_with_slope, linearize
from pushforward.networks.lipschitz import CONTRACTIVE, spectral_bound


def normal(*shape: int, seed: int = 0, spread: float = 1.0) -> Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MATRICES = {
    "square": normal(60, 60),
    "wide": normal(3, 50, seed=1),
    "tall": normal(50, 3, seed=2),
    "one": normal(1, 1, seed=3),
    "orthogonal": torch.linalg.qr(normal(128, 128, seed=4))[0],
    "rank one": normal(20, 1, seed=5) @ normal(1, 30, seed=6),
    "huge": normal(20, 20, seed=7, spread=1e12),
    "tiny": normal(20, 20, seed=8, spread=1e-12),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", MATRICES)
def test_the_bound_is_one_and_is_tight(name, dtype):
    weight = MATRICES[name].to(dtype)
    norm = torch.linalg.matrix_norm(weight.double(), 2)
    ratio = (spectral_bound(weight).double() / norm).item()
    rounding = 20 * torch.finfo(dtype).eps
    assert 1 - rounding <= ratio <= 1.02


def test_the_bound_of_equal_singular_values_is_the_worst_that_theory_allows():
    """rank^(1 / 256) at 6 squarings."""
    assert spectral_bound(torch.eye(100).double()).item() == pytest.approx(100 ** (1 / 256), rel=1e-12)


def test_a_matrix_of_zeros():
    weight = torch.zeros(4, 3, requires_grad=True)
    bound = spectral_bound(weight)
    assert 0 <= bound < 1e-15
    bound.backward()
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()


def test_the_bound_has_the_right_gradient():
    assert torch.autograd.gradcheck(spectral_bound, (normal(4, 6).requires_grad_(),))


@pytest.mark.parametrize("activation", CONTRACTIVE)
@pytest.mark.parametrize("spread", [0.01, 1.0, 100.0])
def test_the_bound_is_valid_for_any_weights(activation, spread):
    network = LipschitzMLP(3, 4, (20, 30), coefficient=0.8, activation=activation, context=2).double()
    with torch.no_grad():
        for k, parameter in enumerate(network.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=k, spread=spread))
    x, near = normal(500, 3, spread=4.0), normal(500, 3, seed=9, spread=1e-3)
    context = normal(500, 2, seed=10)
    with torch.no_grad():
        change = (network(x + near, context) - network(x, context)).norm(dim=-1)
        assert (change <= 0.8 * near.norm(dim=-1) * (1 + 1e-9)).all()
        slopes = torch.linalg.matrix_norm(network.at(x, context).jacobian(), 2)
        assert slopes.max() <= 0.8
    assert spread != 1.0 or slopes.max() > 0.01  # else the test could not fail


def test_small_weights_are_not_changed():
    network = LipschitzMLP(3, 3, (8,), coefficient=0.9)
    with torch.no_grad():
        for linear in network.linears:
            linear.weight.mul_(0.1)  # pyright: ignore
    for (weight, _), linear in zip(network.layers(), network.linears, strict=True):
        assert torch.equal(weight, linear.weight)  # pyright: ignore


@pytest.mark.parametrize("name", SLOPED)
def test_slopes_are_derivatives(name):
    x = torch.cat((normal(200, spread=3.0), torch.tensor([-1e3, -50.0, 0.0, 50.0, 1e3]).double())).requires_grad_()
    beta = torch.tensor(1.7, dtype=torch.float64) if name == "lipswish" else None
    y, slope = activate_with_slope(name, x, beta)
    torch.testing.assert_close(y, activate(name, x, beta))
    (expected,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope.detach(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("beta", [0.01, 0.5, 1.0, 30.0])
def test_lipswish_is_contractive_for_any_sharpness(beta):
    x = torch.linspace(-50, 50, 100_001, dtype=torch.float64) / beta
    _, slope = activate_with_slope("lipswish", x, torch.tensor(beta))
    assert 0.999 < slope.abs().max() < 1


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("clamped", [False, True])
def test_jacobian_products_and_trace(depth, clamped):
    widths = [5, 7, 6, 8][: depth + 1] + [5]
    layers = [(normal(b, a, seed=k) / 2, normal(b, seed=k)) for k, (a, b) in enumerate(itertools.pairwise(widths))]
    x = normal(4, 5, seed=20)

    def network(x: Tensor) -> Tensor:
        seen = x.clamp(-1, 1) if clamped else x
        first = torch.nn.functional.linear(seen, *layers[0])
        return linearize("tanh", first, layers[1:], [None] * depth)[0]

    seen = x.clamp(-1, 1) if clamped else x
    value, slopes = linearize("tanh", torch.nn.functional.linear(seen, *layers[0]), layers[1:], [None] * depth)
    inside = (x.abs() <= 1).double() if clamped else None
    point = Linearized(value, [weight for weight, _ in layers], slopes, inside)
    dense = torch.stack([torch.autograd.functional.jacobian(network, row) for row in x])
    torch.testing.assert_close(point.jacobian(), dense, rtol=1e-12, atol=1e-12)
    v = normal(3, 4, 5, seed=30)
    torch.testing.assert_close(point.vjp(v), torch.einsum("rbi,bij->rbj", v, dense), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(point.jvp(v), torch.einsum("bij,rbj->rbi", dense, v), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(point.trace(), dense.diagonal(dim1=1, dim2=2).sum(-1), rtol=1e-12, atol=1e-12)


def test_errors_of_invalid_arguments():
    with pytest.raises(ConfigError, match="activation must be"):
        LipschitzMLP(2, 2, activation="silu")
    with pytest.raises(ConfigError, match="coefficient"):
        LipschitzMLP(2, 2, coefficient=0.0)
    with pytest.raises(ConfigError, match="activation must be"):
        activate("relu", torch.zeros(1))


@pytest.mark.parametrize(
    "network",
    [
        LipschitzMLP(4, 4, (5,), context=2),
        LipschitzConvNet((1, 2, 2), (3,), context=2),
        VelocityMLP(4, (5,), context=2),
    ],
    ids=lambda network: type(network).__name__,
)
def test_a_missing_or_wrong_context_is_an_error(network):
    """Without a context they once computed as if there were none."""
    x = torch.zeros(3, 1, 2, 2) if isinstance(network, LipschitzConvNet) else torch.zeros(3, 4)
    inputs = (torch.tensor(0.5), x) if isinstance(network, VelocityMLP) else (x,)
    assert network(*inputs, torch.zeros(3, 2)).shape == x.shape
    for context, got in ((None, "none"), (torch.zeros(3, 1), r"shape \(3, 1\)"), (torch.tensor(1.0), r"shape \(\)")):
        with pytest.raises(InputError, match=rf"{type(network).__name__} needs a context of width 2; got {got}"):
            network(*inputs, context)
