"""Masked autoregressive maps: the triangular Jacobian, the passes that decoding needs, and the mirror image."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.errors import ConfigError
from pushforward.maps import (
    AdditiveTransformer,
    CircularSplineTransformer,
    GatedTransformer,
    Inverse,
    MaskedAutoregressive,
    SplineTransformer,
    Transformer,
)

ORDERS = [None, "reverse", (2, 0, 4, 1, 3)]


def make(features: int, law: Transformer | None = None, **options) -> MaskedAutoregressive:
    torch.manual_seed(0)
    layer = MaskedAutoregressive(features, law, **{"hidden": (64,), "activation": "tanh", **options}).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
    return layer.eval()


def sequence(layer: MaskedAutoregressive, order) -> list[int]:
    features = layer.features
    return list(range(features)) if order is None else [*reversed(range(features))] if order == "reverse" else [*order]


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("law", [None, AdditiveTransformer(), GatedTransformer(), SplineTransformer()], ids=str)
def test_jacobian_is_triangular_in_the_order_and_full_below(order, law):
    layer = make(5, law, order=order)
    place = [sequence(layer, order).index(i) for i in range(5)]
    x = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    jacobian = torch.func.jacrev(lambda t: layer.encode(t).z)(x)
    allowed = torch.tensor([[place[i] >= place[j] for j in range(5)] for i in range(5)])
    assert torch.equal(jacobian != 0, allowed)
    torch.testing.assert_close(jacobian.diagonal().log().sum(), layer.encode(x).contribution)


def passes(layer: MaskedAutoregressive, z: torch.Tensor, count: int) -> torch.Tensor:
    """Fixed-point iteration: every pass inverts all coordinates given the last x (maf.md, 3.7)."""
    x = torch.zeros_like(z)
    for _ in range(count):
        x = layer.transformer.inverse(z, layer._raw(x, None))[0]
    return x


@pytest.mark.parametrize("features", [2, 5])
@pytest.mark.parametrize("order", [None, "reverse"], ids=str)
def test_as_many_passes_as_coordinates_are_enough_and_one_less_is_not(features, order):
    layer = make(features, order=order)
    assert (layer.encode_passes, layer.decode_passes) == (1, features)
    x = torch.randn(20, features, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = layer.encode(x).z
    torch.testing.assert_close(passes(layer, z, features), x, rtol=1e-10, atol=1e-10)
    early = (passes(layer, z, features - 1) - x).abs()
    last = sequence(layer, order)[-1]
    assert early[:, last].max() > 1e-3
    others = [i for i in range(features) if i != last]
    assert early[:, others].max() < 1e-10
    torch.testing.assert_close(layer.decode(z), x, rtol=1e-10, atol=1e-10)


def test_decoding_asks_the_network_exactly_once_for_each_coordinate(monkeypatch):
    layer = make(5)
    calls = []
    forward = layer.network.forward
    monkeypatch.setattr(layer.network, "forward", lambda *args: calls.append(1) or forward(*args))
    layer.decode(torch.randn(3, 5, dtype=torch.float64))
    assert len(calls) == 5
    layer.encode(torch.randn(3, 5, dtype=torch.float64))
    assert len(calls) == 6


def test_the_inverse_autoregressive_flow_is_the_mirror_image():
    """MAF and IAF with the same weights: each one's encode is the other's decode (Papamakarios et al. 2017, sec. 3.2)."""
    maf = make(5, context=2)
    iaf = Inverse(maf)
    assert (iaf.encode_passes, iaf.decode_passes) == (5, 1)
    generator = torch.Generator().manual_seed(1)
    x, c = (torch.randn(7, d, dtype=torch.float64, generator=generator) for d in (5, 2))
    step = maf.encode(x, c)
    assert torch.equal(iaf.decode(x, c), step.z)
    back = iaf.encode(step.z, c)
    torch.testing.assert_close(back.z, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(back.contribution, -step.contribution)
    z, contribution = iaf.decode_with_contribution(x, c)
    assert torch.equal(z, step.z)
    torch.testing.assert_close(contribution, -step.contribution)


def test_affine_terms_by_hand():
    """z_i = x_i exp(s_i) + t_i, with s and t of the coordinates before i from the network."""
    layer = make(3)
    x = torch.randn(4, 3, dtype=torch.float64)
    t, raw = layer.network(x)
    s = 3 * torch.tanh(raw / 3)
    z, terms = layer.encode_terms(x)
    torch.testing.assert_close(z, x * s.exp() + t)
    torch.testing.assert_close(terms, s)
    assert torch.equal(s[:, 0], s[:1, 0].expand(4))  # nothing comes before the first


def test_one_feature_has_free_parameters_or_follows_the_context():
    x = torch.randn(6, 1, dtype=torch.float64)
    contribution = make(1).encode(x).contribution
    assert torch.equal(contribution, contribution[:1].expand(6))
    assert make(1, context=2).encode(x, torch.randn(6, 2, dtype=torch.float64)).contribution.unique().numel() == 6


def test_context_reaches_the_first_coordinate():
    layer = make(3, context=2, order="reverse")
    x = torch.zeros(3, dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda c: layer.encode(x, c).z)(torch.randn(2, dtype=torch.float64))
    assert (jacobian != 0).all()


def test_circular_laws_see_the_circle():
    layer = make(2, CircularSplineTransformer())
    x = torch.tensor([[math.pi, 0.3], [-math.pi, 0.3]], dtype=torch.float64)
    z = layer.encode(x).z
    torch.testing.assert_close(z[0, 1], z[1, 1])
    assert layer.encode(torch.tensor([[3.2, 0.0]], dtype=torch.float64)).contribution.item() == -math.inf


def test_gradients_flow_through_decoding():
    layer = make(3)
    z = torch.randn(2, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(layer.decode, (z,))
    assert torch.autograd.gradcheck(lambda t: layer.decode_with_contribution(t)[1], (z,))


@pytest.mark.parametrize("order", ["backwards", (0, 1), (0, 1, 1), (1, 2, 3), (0, 1, 2.5)], ids=str)
def test_impossible_orders(order):
    with pytest.raises(ConfigError, match="order"):
        MaskedAutoregressive(3, order=order)


@pytest.mark.parametrize("options", [{"hidden": (0,)}, {"activation": "none"}, {"residual": True, "hidden": ()}])
def test_impossible_networks(options):
    with pytest.raises(ConfigError):
        MaskedAutoregressive(3, **options)
