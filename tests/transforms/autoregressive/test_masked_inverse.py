"""Solving by sweeps: as exact as by steps, chosen where it is faster, and completed by steps where it does not converge."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward.kernels import use_kernels
from pushforward.networks import MADE
from pushforward.networks.incremental import IncrementalMADE
from pushforward.transforms import (
    AdditiveTransformer,
    AffineTransformer,
    CircularSplineTransformer,
    GatedTransformer,
    MaskedAutoregressive,
    SplineTransformer,
    Transformer,
)
from pushforward.transforms.autoregressive import masked_inverse


@pytest.fixture(autouse=True)
def plain():
    """The compiled function takes steps for any network; tests/kernels/test_made_kernel.py compares the two."""
    with use_kernels("plain"):
        yield


TRANSFORMERS = [
    AffineTransformer(),
    AdditiveTransformer(),
    GatedTransformer(),
    SplineTransformer(),
    CircularSplineTransformer(),
]


def make(features: int, transformer: Transformer, gain: float, dtype: torch.dtype = torch.float64, **options) -> MADE:
    """Random weights of this gain for each layer."""
    options = {"hidden": (80, 80), "activation": "tanh", **options}
    network = MADE(features, transformer.parameters, copies=2 if transformer.periodic else 1, **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            size = gain / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.3
            parameter.copy_(torch.randn(parameter.shape) * size)
    return network.to(dtype)


def residual(network: MADE, transformer: Transformer, z: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
    """Largest error of the round trip, in units of z, with f(x) from one pass of the network."""
    seen = torch.cat((x.cos(), x.sin())) if transformer.periodic else x
    raw = network(seen.t(), context).movedim(-1, 1)
    error = (transformer.forward(x, raw)[0] - z).abs()
    return (torch.minimum(error, (error - 2 * math.pi).abs()) if transformer.periodic else error).max()


@pytest.fixture
def outcomes(monkeypatch) -> list[bool]:
    """Whether each swept block converged."""
    seen: list[bool] = []
    sweep = masked_inverse._sweep

    def watched(*args):
        result = sweep(*args)
        seen.append(result is not None)
        return result

    monkeypatch.setattr(masked_inverse, "_sweep", watched)
    return seen


def noise(
    features: int, rows: int, transformer: Transformer, spread: float = 1.0, dtype: torch.dtype = torch.float64
) -> Tensor:
    z = spread * torch.randn(features, rows, dtype=dtype)
    return 3 * torch.tanh(z) if transformer.periodic else z


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("gain", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("features", [16, 70, 300])
@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=str)
@torch.no_grad()
def test_sweeps_are_as_accurate_as_steps(transformer, features, gain, dtype, outcomes):
    network = make(features, transformer, gain, dtype)
    z = noise(features, 4, transformer, dtype=dtype)
    swept = masked_inverse.solve_autoregressive(network, transformer, z)
    assert len(outcomes) >= 1  # they were used
    steps = masked_inverse.by_steps(IncrementalMADE(network, 4), transformer, z)
    stepped = torch.cat([x for x, _ in steps])
    scale = (
        1
        + (z - transformer.inverse(z, torch.zeros(transformer.parameters, *z.shape, dtype=dtype))[0]).abs().max()
        + z.abs().max()
    )
    allowed = 4 * residual(network, transformer, z, stepped) + 8 * torch.finfo(dtype).eps * scale
    assert residual(network, transformer, z, swept[0]) <= allowed
    if dtype is torch.float64 and gain <= 1:
        torch.testing.assert_close(swept[0], stepped, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(swept[1], torch.cat([s for _, s in steps]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("transformer", TRANSFORMERS[:1] + TRANSFORMERS[3:], ids=str)
@torch.no_grad()
def test_mild_layers_converge(transformer, outcomes):
    for options in ({}, {"residual": True}, {"context": 2}, {"order": tuple(range(79, -1, -1))}):
        context = torch.randn(3, 2, dtype=torch.float64) if options.get("context") else None
        masked_inverse.solve_autoregressive(
            make(80, transformer, 0.5, **options), transformer, noise(80, 3, transformer), context
        )
    assert outcomes == [True] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("transformer", "strength"),
    [(AffineTransformer(), 1.5), (AdditiveTransformer(), 1.5), (GatedTransformer(), 15.0)],
    ids=str,
)
@torch.no_grad()
def test_chaotic_layers_end_in_steps_and_are_right(transformer, strength, dtype, outcomes):
    """Each coordinate's shift follows the one before it, and amplifies its changes: no coordinate converges before the ones before it."""
    network = make(300, transformer, 0.0, dtype, hidden=(), input_bound=10.0)
    network.last.weight[:300].copy_(strength * torch.diag(torch.ones(299), -1))
    z = noise(300, 3, transformer, dtype=dtype)
    x, slope = masked_inverse.solve_autoregressive(network, transformer, z)
    assert outcomes == [False]
    stepped = torch.cat([x for x, _ in masked_inverse.by_steps(IncrementalMADE(network, 3), transformer, z)])
    assert (
        residual(network, transformer, z, x)
        <= 10 * residual(network, transformer, z, stepped) + 10 * torch.finfo(dtype).eps
    )
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("options", [{}, {"residual": True}, {"context": 2}], ids=str)
@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=str)
@torch.no_grad()
def test_steps_after_failed_sweeps_give_the_same_result(transformer, options, outcomes, monkeypatch):
    monkeypatch.setattr(masked_inverse, "max_sweeps", lambda coordinates: 2)
    network = make(300, transformer, 1.0, **options)
    context = torch.randn(3, 2, dtype=torch.float64) if options.get("context") else None
    z = noise(300, 3, transformer)
    found = masked_inverse.solve_autoregressive(network, transformer, z, context)
    assert outcomes == [False]
    stepped = masked_inverse.by_steps(IncrementalMADE(network, 3, context), transformer, z)
    for one, other in zip(found, zip(*stepped, strict=True), strict=True):
        torch.testing.assert_close(one, torch.cat(other), rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_chain_that_takes_as_many_sweeps_as_coordinates(outcomes):
    """x_i = z_i - 1.5 x_(i-1) within the bound: every sweep makes one more coordinate exact."""
    transformer = AdditiveTransformer()
    network = MADE(130, 1, (), input_bound=10.0).double()
    network.last.weight.copy_(1.5 * torch.diag(torch.ones(129), -1))
    z = torch.randn(130, 2, dtype=torch.float64)
    x = masked_inverse.solve_autoregressive(network, transformer, z)[0]
    expected = [z[0]]
    for value in z[1:]:
        expected.append(value - 1.5 * expected[-1].clamp(-10, 10))
    torch.testing.assert_close(x, torch.stack(expected))
    assert outcomes == [False]


@torch.no_grad()
def test_blocks_that_converge_before_one_that_does_not_are_kept(outcomes):
    """Sensitive from the 200th coordinate on: the second of three blocks does not converge, and steps solve the rest."""
    transformer = AdditiveTransformer()
    network = MADE(600, 1, (), input_bound=10.0).double()
    stiff = torch.where(torch.arange(599) >= 250, 1.5, 0.01)
    network.last.weight.copy_(torch.diag(stiff, -1))
    z = torch.randn(600, 2, dtype=torch.float64)
    x = masked_inverse.solve_autoregressive(network, transformer, z)[0]
    expected = [z[0]]
    for factor, value in zip(stiff.tolist(), z[1:], strict=True):
        expected.append(value - factor * expected[-1].clamp(-10, 10))
    torch.testing.assert_close(x, torch.stack(expected))
    assert outcomes == [True, False]


@pytest.mark.parametrize("spread", [1e-9, 1e-3, 1e3, 1e6])
@torch.no_grad()
def test_convergence_is_measured_in_the_units_of_the_data(spread):
    """Noise of any size keeps its digits: shifts are proportional to it, and there is no absolute tolerance."""
    transformer = AffineTransformer()
    network = MADE(40, 2, (), input_bound=None).double()
    weight = 0.3 * torch.randn(40, 40, dtype=torch.float64)
    network.last.weight.copy_(torch.cat((weight, torch.zeros_like(weight))))
    z = spread * torch.randn(40, 3, dtype=torch.float64)
    x = masked_inverse.solve_autoregressive(network, transformer, z)[0]
    exact = torch.linalg.solve_triangular(torch.eye(40).double() + weight.tril(-1), z, upper=False)
    torch.testing.assert_close(x / spread, exact / spread, rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_infinite_rows_do_not_change_others():
    transformer = AffineTransformer()
    network = make(40, transformer, 0.5)
    z = noise(40, 3, transformer)
    wanted = masked_inverse.solve_autoregressive(network, transformer, z)[0]
    z[5, 1] = math.inf
    x = masked_inverse.solve_autoregressive(network, transformer, z)[0]
    torch.testing.assert_close(x[:, [0, 2]], wanted[:, [0, 2]])
    assert x[5, 1] == math.inf
    assert not torch.isnan(x).any()


def test_sweeps_are_for_few_rows_of_many_coordinates_without_gradient():
    network = MADE(63, 2, (512, 512))
    with torch.no_grad():
        assert masked_inverse.sweeping_pays(network, torch.zeros(63, 1))
        assert not masked_inverse.sweeping_pays(network, torch.zeros(63, 512))
        assert not masked_inverse.sweeping_pays(MADE(6, 2), torch.zeros(6, 1))
        assert masked_inverse.sweeping_pays(MADE(784, 2, (512, 512)), torch.zeros(784, 16))
    assert not masked_inverse.sweeping_pays(network, torch.zeros(63, 1))


def test_splines_of_many_bins_need_no_matrix_of_their_squares():
    layer = MaskedAutoregressive(2, transformer=SplineTransformer(bins=60_000, min_bin=1e-6), hidden=(4,))
    x = torch.tensor([[0.5, -1.0], [2.0, 9.0]])
    with torch.no_grad():
        assert torch.allclose(layer.decode(layer.encode(x).z), x, atol=1e-4)
