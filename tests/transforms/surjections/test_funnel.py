"""Funnels: the coupling whose second part is sliced off; mass, dense Jacobians, and torch's own convolution."""

from __future__ import annotations

import math
from typing import Any

import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.distributions import Normal
from pushforward.errors import ConfigError, InputError, KindError
from pushforward.likelihood import Counting, Kind, Lebesgue
from pushforward.models import Flow
from pushforward.transforms import (
    Abs,
    AdditiveTransformer,
    Chain,
    CircularSplineTransformer,
    ConvFunnel,
    Coupling,
    Funnel,
    ImageCoupling,
    ImageFunnel,
    Monotone,
    Slice,
    SplineTransformer,
    Transform,
)

S = (8,)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def perturb(transform: Transform, size: float = 0.5) -> Any:
    transform.double()
    with torch.no_grad():
        for number, parameter in enumerate(transform.parameters()):
            parameter.add_(size * normal(*parameter.shape, seed=number))
    return transform


def mass(funnel: Transform, count: int, reach: float) -> float:
    """By the midpoint rule in t of x = sinh t, which reaches far into the tails."""
    model = Flow(funnel, Normal(funnel.out_shape)).double()
    step = 2 * reach / count
    t = -reach + step * (torch.arange(count, dtype=torch.float64) + 0.5)
    width = math.prod(model.shape)
    points = torch.cartesian_prod(*[torch.sinh(t)] * width).reshape(-1, *model.shape)
    weights = torch.cartesian_prod(*[step * torch.cosh(t)] * width).reshape(-1, width).prod(-1)
    with torch.no_grad():
        parts = [model.log_prob(part).exp() for part in points.split(100_000)]
    return (torch.cat(parts) * weights).sum().item()


@pytest.mark.parametrize("transformer", [None, SplineTransformer(4)], ids=["affine", "spline"])
def test_mass_is_one_in_two_and_three_dimensions(transformer):
    assert mass(perturb(Funnel(2, 1, transformer, hidden=S, decoder_hidden=S), 0.3), 500, 6.0) == pytest.approx(
        1.0, abs=1e-3
    )
    assert mass(perturb(Funnel(3, (2,), transformer, hidden=S, decoder_hidden=S), 0.2), 110, 4.5) == pytest.approx(
        1.0, abs=2e-3
    )
    assert mass(perturb(Funnel(3, 2, transformer, hidden=S, decoder_hidden=S), 0.2), 110, 4.5) == pytest.approx(
        1.0, abs=2e-3
    )


def test_mass_of_funnels_of_images_is_one():
    assert mass(perturb(ImageFunnel((2, 1, 1), hidden=S, decoder_hidden=S), 0.2), 500, 6.0) == pytest.approx(
        1.0, abs=1e-3
    )
    assert mass(perturb(ConvFunnel((1, 2, 2), hidden=S), 0.1), 26, 3.0) == pytest.approx(1.0, abs=5e-3)


def test_it_is_the_coupling_and_then_the_slice():
    """The bijection (x_kept, x_dropped) to (z, x_dropped), against its dense Jacobian, times the density of x_dropped."""
    funnel = perturb(Funnel(5, (4, 1), SplineTransformer(4), hidden=S, decoder_hidden=S))
    x = 2 * normal(20, 5)
    z, contribution = funnel(x)
    for row, here, value in zip(x, z, contribution, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda t: funnel.encode(t).z, row)
        kept = torch.linalg.slogdet(jacobian[:, [4, 1]])[1]
        e, volume = funnel.density.flow(row[[0, 2, 3]], here)
        paid = scipy.stats.norm.logpdf(e.detach().numpy()).sum() + volume
        assert value.item() == pytest.approx((kept + paid).item(), abs=1e-9)


def test_a_chain_of_coupling_and_slice_has_the_same_density():
    decoder = perturb(Monotone(2, SplineTransformer(4), context=2, hidden=S))
    coupling = perturb(Coupling(4, mask=(2, 3), hidden=S))
    funnel = Funnel(4, 2, None, decoder, hidden=S).double()
    funnel.coupling.load_state_dict(coupling.state_dict())
    x = normal(20, 4)
    z, contribution = Chain(coupling, Slice(4, 2, decoder))(x)
    torch.testing.assert_close(funnel(x), (z, contribution))


def test_the_dense_layer_is_linear():
    """Additive transformer without hidden layers: z = x_kept + V x_dropped + b, with a log-determinant of 0."""
    funnel = perturb(Funnel(4, (0, 3), AdditiveTransformer(), hidden=(), decoder_hidden=S))
    funnel.coupling.network.input_bound = None
    x = normal(10, 4)
    jacobian = torch.autograd.functional.jacobian(lambda t: funnel.encode(t).z, x[0])
    torch.testing.assert_close(jacobian[:, [0, 3]], torch.eye(2, dtype=torch.float64))
    affine = x @ jacobian.T + funnel.encode(torch.zeros(4, dtype=torch.float64)).z
    torch.testing.assert_close(funnel.encode(x).z, affine)


def test_decoding_keeps_z_and_draws_the_dropped_coordinates():
    for funnel in (
        perturb(Funnel(5, 2, SplineTransformer(4), hidden=S, decoder_hidden=S)),
        perturb(ImageFunnel((4, 2, 2), 1, hidden=S, decoder_hidden=S)),
        perturb(ConvFunnel((2, 4, 4), hidden=S), 0.2),
    ):
        z = normal(8, *funnel.out_shape)
        first, second = (funnel.decode(z, noise=torch.Generator().manual_seed(seed)) for seed in (0, 1))
        assert (first != second).any(0).all()
        for x in (first, second, funnel.decode(z)):
            torch.testing.assert_close(funnel.encode(x).z, z, rtol=1e-8, atol=1e-8)


def test_conv_funnel_is_a_convolution():
    """z is torch's convolution with the kernel that has A at its last position and V elsewhere."""
    funnel = perturb(ConvFunnel((3, 4, 6), hidden=S), 0.2)
    kernel = torch.empty(3, 3, 2, 2, dtype=torch.float64)
    matrix, log_det = funnel.square.matrix_and_log_det()
    kernel.flatten(2)[..., -1] = matrix.detach()
    kernel.flatten(2)[..., :-1] = funnel.rest.weight.detach().reshape(3, 3, 3)
    x = normal(5, 3, 4, 6)
    expected = F.conv2d(x, kernel, funnel.rest.bias.detach(), stride=2)
    torch.testing.assert_close(funnel.encode(x).z, expected)
    # Its determinant counts at each of the 2 x 3 sites: against the dense Jacobian in the last pixels of the patches.
    last = torch.zeros(4, 6, dtype=torch.bool)
    last[1::2, 1::2] = True
    jacobian = torch.autograd.functional.jacobian(lambda t: funnel.encode(t).z, x[0]).reshape(18, 3, 4, 6)
    found = torch.linalg.slogdet(jacobian[..., last].reshape(18, 18))[1]
    assert found.item() == pytest.approx(6 * log_det.item(), abs=1e-9)


def test_conv_funnel_has_the_density_of_the_dropped_values():
    """The network starts at 0, so the dropped values are standard normal, and the remaining term is the determinant."""
    funnel = ConvFunnel((1, 4, 4), hidden=S).double()  # its network starts at 0
    x = normal(5, 1, 4, 4)
    dropped = torch.ones(4, 4, dtype=torch.bool)
    dropped[1::2, 1::2] = False
    density = torch.from_numpy(scipy.stats.norm.logpdf(x[..., dropped].numpy())).sum((1, 2))
    log_det = funnel.square.matrix_and_log_det()[1]
    torch.testing.assert_close(funnel.encode(x).contribution, density + 4 * log_det)


def test_image_funnel_is_two_couplings():
    funnel = perturb(ImageFunnel((3, 2, 2), 1, SplineTransformer(4), hidden=S, decoder_hidden=S))
    x = normal(5, 3, 2, 2)
    first = ImageCoupling((3, 2, 2), SplineTransformer(4), keep=2, flip=True, hidden=S).double()
    first.load_state_dict(funnel.coupling.state_dict())
    moved, volume = first(x)
    torch.testing.assert_close(moved[:, 1:], x[:, 1:])
    torch.testing.assert_close(funnel.encode(x).z, moved[:, :1])
    both, paid = funnel.decoder_coupling(moved)
    density = torch.from_numpy(scipy.stats.norm.logpdf(both[:, 1:].detach().numpy())).sum((1, 2, 3))
    torch.testing.assert_close(funnel.encode(x).contribution, volume + paid + density)


def test_kind():
    for funnel in (Funnel(3), ImageFunnel((2, 1, 1)), ConvFunnel((1, 2, 2))):
        assert funnel.kind is Kind.EXACT
        assert funnel.measure(Lebesgue(1)) == Lebesgue(math.prod(funnel.in_shape))
        assert not funnel.bijective
        with pytest.raises(KindError, match=type(funnel).__name__):
            funnel.measure(Counting(1))


def test_arguments_that_do_not_fit_are_refused():
    for make, match in (
        (lambda: Funnel(3, 3), "keep of Funnel"),
        (lambda: Funnel(3, 1, None, Monotone(1, context=1)), "2 coordinates"),
        (lambda: Funnel(3, 1, None, Monotone(2, context=1), context=2), "width 3"),
        (lambda: Funnel(3, 1, CircularSplineTransformer()), "all reals"),
        (lambda: ImageFunnel((2, 1, 1), 2), "must keep some"),
        (lambda: ImageFunnel((1, 1, 1)), "must keep some"),
        (lambda: ConvFunnel((1, 4, 5)), "divide"),
        (lambda: ConvFunnel((1, 4, 4), 1), "window"),
    ):
        with pytest.raises(ConfigError, match=match):
            make()
    with pytest.raises(KindError, match="not a bijection"):
        Funnel(2, 1, None, Chain(Monotone(1, context=1), Abs(1)))
    with pytest.raises(InputError, match="context"):
        Funnel(3, context=2).encode(torch.zeros(1, 3))
