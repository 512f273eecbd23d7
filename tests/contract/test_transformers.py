"""The contract of transformers and of networks."""

from __future__ import annotations

import math

import pytest
import torch

import pushforward
from pushforward.likelihood import REAL
from pushforward.transforms import AdditiveTransformer, GatedTransformer

from .cases import NETWORKS, TRANSFORMERS, Case
from .tools import TYPES, build, built, generator, same


def points(case: Case, count: int = 400, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return case.data((count,), generator(1)).to(dtype)


def raws(case: Case, count: int = 400, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    shape = (built(case).parameters, count)
    return (scale * torch.randn(shape, dtype=torch.float64, generator=generator(2))).to(dtype)


@pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
def test_inverse(case):
    transformer, x, raw = built(case), points(case), raws(case)
    y, log_slope = transformer.forward(x, raw)
    back, same_slope = transformer.inverse(y, raw)
    assert y.shape == log_slope.shape == x.shape
    same(back, x, 1e-10)
    same(same_slope, log_slope, 1e-9)


@pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
def test_slope_is_the_derivative_both_ways(case):
    transformer, raw = built(case), raws(case)
    x = points(case).requires_grad_()
    y, log_slope = transformer.forward(x, raw)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()
    same(slope.log(), log_slope.detach(), 1e-9)
    y = y.detach().requires_grad_()
    (inverse_slope,) = torch.autograd.grad(transformer.inverse(y, raw)[0].sum(), y)
    same(-inverse_slope.log(), log_slope.detach(), 1e-9)


@pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
def test_gradients_to_the_raw_parameters(case):
    transformer = built(case)
    # A fixed point inside a piece: at a knot the second derivative jumps, and finite differences straddle it.
    x, raw = points(case, 6), raws(case, 6, 0.5).requires_grad_()
    y = transformer.forward(x, raw)[0].detach()
    assert torch.autograd.gradcheck(lambda r: transformer.forward(x, r), (raw,))
    assert torch.autograd.gradcheck(lambda r: transformer.inverse(y, r)[0], (raw,))


@pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
def test_identity_at_zero(case):
    transformer, x = built(case), points(case)
    raw = torch.zeros(transformer.parameters, x.numel(), dtype=torch.float64)
    y, log_slope = transformer.forward(x, raw)
    if isinstance(transformer, GatedTransformer):  # the paper's gate starts as a contraction
        gate = 1 / (1 + math.exp(-transformer.bias))
        same(y, gate * x)
        same(log_slope, torch.full_like(x, math.log(gate)))
    else:
        same(y, x)
        same(log_slope, torch.zeros_like(x))


@pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
def test_the_slope_differs_from_one_unless_additive(case):
    transformer = built(case)
    log_slope = transformer.forward(points(case), raws(case))[1]
    assert (log_slope != 0).any() == (not isinstance(transformer, AdditiveTransformer))


@pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
def test_it_keeps_its_interval(case):
    transformer = built(case)
    raw = raws(case, scale=5.0)
    edge = 1e3 if transformer.support == REAL else transformer.support.high
    x = torch.linspace(-edge, edge, 400, dtype=torch.float64)
    for y, _ in (transformer.forward(x, raw), transformer.inverse(x, raw)):
        assert transformer.support.contains(y).all()


@pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
def test_it_is_increasing(case):
    transformer = built(case)
    raw = raws(case, 1, 3.0).expand(-1, 4000)
    edge = 10.0 if transformer.support == REAL else transformer.support.high
    x = torch.linspace(-edge, edge - 1e-9, 4000, dtype=torch.float64)
    steps = transformer.forward(x, raw)[0].diff()
    if transformer.periodic:  # one jump back, where the turn ends
        assert (steps <= 0).sum() <= 1
    else:
        assert (steps > 0).all()


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
def test_any_raw_value_and_any_distance_is_finite(case, dtype):
    transformer = built(case)
    for size in (0.0, 1.0, 20.0, 1e6):
        for distance in (0.0, 1.0, 1e3, 1e6):
            x = (distance * points(case, dtype=dtype)).requires_grad_()
            raw = raws(case, scale=size, dtype=dtype).requires_grad_()
            for run in (transformer.forward, transformer.inverse):
                y, log_slope = run(x, raw)
                assert y.dtype is log_slope.dtype is dtype
                assert torch.isfinite(y).all()
                assert torch.isfinite(log_slope).all()
                gradients = torch.autograd.grad(y.sum() + log_slope.sum(), (x, raw), allow_unused=True)
                assert all(g is None or torch.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
def test_second_derivatives_are_finite_at_any_distance(case, dtype):
    transformer, raw = built(case), raws(case, dtype=dtype).requires_grad_()
    for scale in (1.0, 30.0, 1e4):
        x = (scale * points(case, dtype=dtype)).requires_grad_()
        y, log_slope = transformer.forward(x, raw)
        slopes = torch.autograd.grad(y.sum() + log_slope.sum(), (x, raw), create_graph=True, allow_unused=True)
        total = sum(slope.sum() for slope in slopes if slope is not None and slope.requires_grad)
        if isinstance(total, torch.Tensor):
            for bend in torch.autograd.grad(total, (x, raw), allow_unused=True):
                assert bend is None or torch.isfinite(bend).all(), f"x{scale:g}"


@pytest.mark.parametrize("case", TRANSFORMERS, ids=str)
def test_shapes(case):
    transformer = built(case)
    for shape in ((), (3,), (2, 3, 4), (0, 2)):
        x = torch.zeros(shape, dtype=torch.float64)
        raw = torch.zeros(transformer.parameters, *shape, dtype=torch.float64)
        for run in (transformer.forward, transformer.inverse):
            y, log_slope = run(x, raw)
            assert y.shape == log_slope.shape == shape


def event_of(network) -> tuple[int, ...]:
    if isinstance(network, pushforward.networks.ConvNet):
        return (network.inputs, 3, 4)
    return (network.inputs if hasattr(network, "inputs") else network.features,)


def network_inputs(network, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    x = torch.randn(*shape, *event_of(network), generator=generator(1), dtype=torch.float64).to(dtype)
    if not getattr(network, "context", 0):
        return (x,)
    return x, torch.randn(*shape, network.context, generator=generator(2), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("case", NETWORKS, ids=str)
def test_networks_keep_batch_shapes(case):
    network = built(case)
    whole = network(*network_inputs(network, (6,)))
    parameters_first = isinstance(network, pushforward.networks.MADE)
    for shape in ((), (2, 3), (0,)):
        inputs = [t[: math.prod(shape)].reshape(*shape, *t.shape[1:]) if shape != (0,) else t[:0]
                  for t in network_inputs(network, (6,))]  # fmt: skip
        out = network(*inputs)
        if parameters_first:
            assert out.shape == (network.outputs, *shape, network.features)
            if shape == (2, 3):
                same(out.flatten(1, 2), whole, 1e-13)
        else:
            assert out.shape == (*shape, network.outputs, *event_of(network)[1:])
            if shape == (2, 3):
                same(out.flatten(0, 1), whole, 1e-13)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("case", NETWORKS, ids=str)
def test_networks_keep_the_type(case, dtype):
    network = built(case, dtype)
    assert network(*network_inputs(network, (6,), dtype)).dtype is dtype


@pytest.mark.parametrize("case", NETWORKS, ids=str)
def test_networks_train_all_their_weights(case):
    network = build(case)
    network(*network_inputs(network, (64,))).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


# torch's compiler does not support torch's recurrent layers.
@pytest.mark.parametrize("case", [case for case in NETWORKS if case.name != "networks.RecurrentSummary"], ids=str)
def test_networks_compile_whole(case):
    torch._dynamo.reset()
    network = built(case)
    inputs = network_inputs(network, (6,))
    same(torch.compile(network, fullgraph=True, backend="eager")(*inputs), network(*inputs))
