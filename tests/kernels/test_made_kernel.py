"""The native inverse of autoregressive transforms agrees with the plain one, which computes one coordinate at a time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pushforward.errors import InputError
from pushforward.kernels import description, use_kernels
from pushforward.kernels.structs import ACTIVATIONS
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

pytestmark = pytest.mark.skipif(not description()["installed"], reason="the native kernels are not installed")

TRANSFORMERS = [
    AdditiveTransformer(),
    AffineTransformer(),
    AffineTransformer(0.5),
    SplineTransformer(),
    SplineTransformer(3, 2.0),
]
FORMS = {
    "plain": {},
    "deep": {"hidden": (30, 30, 30)},
    "unequal": {"hidden": (40, 7)},
    "narrower than the coordinates": {"hidden": (5, 5)},
    "no hidden layer": {"hidden": ()},
    "residual": {"residual": True, "hidden": (24, 24)},
    "context": {"context": 3},
    "residual, context": {"residual": True, "hidden": (24, 24), "context": 3},
    "context, no hidden layer": {"context": 3, "hidden": ()},
    "reversed": {"order": "reversed"},
    "shuffled": {"order": "shuffled"},
    "no bound": {"input_bound": None},
    "dropout": {"dropout": 0.5},
}


def make(features: int, transformer: Transformer, dtype: torch.dtype = torch.float64, **options) -> MADE:
    order = {"reversed": range(features - 1, -1, -1), "shuffled": torch.randperm(features).tolist()}.get(
        options.get("order", "")
    )
    options = {"hidden": (40, 40), "input_bound": 2.0, **options, "order": None if order is None else tuple(order)}
    network = MADE(features, transformer.parameters, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(
                torch.randn(parameter.shape) * (0.8 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.3)
            )
    return network.to(dtype)


def both(
    network: MADE, transformer: Transformer, z: Tensor, context: Tensor | None = None
) -> tuple[tuple[Tensor, Tensor], ...]:
    """By the compiled function, and step by step with plain operations."""
    with use_kernels("native"):
        found = masked_inverse.solve_autoregressive(network, transformer, z, context)
    with use_kernels("plain"):
        steps = masked_inverse.by_steps(IncrementalMADE(network, z.shape[1], context), transformer, z)
    xs, slopes = zip(*steps, strict=True)
    return found, (torch.cat(xs), torch.cat(slopes))


@pytest.fixture(autouse=True)
def compiled_only(monkeypatch):
    """A call that fell back would compare the plain path with itself: it asks first whether sweeps pay."""

    def refuse(network: MADE, z: Tensor) -> bool:
        assert torch.is_grad_enabled(), "not compiled"
        return False

    monkeypatch.setattr(masked_inverse, "sweeping_pays", refuse)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=str)
@torch.no_grad()
def test_every_form_in_double_precision(transformer, form):
    network = make(9, transformer, **FORMS[form])
    context = torch.randn(5, 3, dtype=torch.float64) if network.context else None
    found, expected = both(network, transformer, 3 * torch.randn(9, 5, dtype=torch.float64), context)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 7, 16, 17, 33, 48, 64, 65, 130, 300])
@torch.no_grad()
def test_every_number_of_rows(rows, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network = make(20, TRANSFORMERS[3], hidden=(70, 90), context=2)
        z, context = torch.randn(20, rows, dtype=torch.float64), torch.randn(rows, 2, dtype=torch.float64)
        found, exact = both(network, TRANSFORMERS[3], z, context)
        singles = both(network.float(), TRANSFORMERS[3], z.float(), context.float())
        for k in range(2):
            torch.testing.assert_close(found[k], exact[k], rtol=1e-10, atol=1e-10)
            ours, theirs = ((single[k] - exact[k]).abs().max() for single in singles)
            assert ours <= 4 * theirs + 1e-5  # as exact in single precision as plain operations
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ACTIVATIONS)
@torch.no_grad()
def test_every_activation(name):
    network = make(6, TRANSFORMERS[1], activation=name)
    found, expected = both(network, TRANSFORMERS[1], torch.randn(6, 4, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("features", [2, 3, 17, 200])
@torch.no_grad()
def test_every_number_of_coordinates(features):
    network = make(features, TRANSFORMERS[1], hidden=(33, 50))
    found, expected = both(network, TRANSFORMERS[1], torch.randn(features, 3, dtype=torch.float64))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_row_that_is_not_finite_changes_no_other():
    network = make(6, TRANSFORMERS[1])
    z = torch.randn(6, 4, dtype=torch.float64)
    clean = both(network, TRANSFORMERS[1], z)[0][0]
    z[2, 1], z[3, 2] = math.nan, math.inf
    found, expected = both(network, TRANSFORMERS[1], z)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, equal_nan=True)
    torch.testing.assert_close(found[0][:, [0, 3]], clean[:, [0, 3]], rtol=0, atol=0)


@torch.no_grad()
def test_far_rows_are_inverted():
    for transformer, layer in (
        (transformer, MaskedAutoregressive(12, transformer, hidden=(64, 64))) for transformer in TRANSFORMERS
    ):
        x = 1e4 * torch.randn(50, 12)
        back = layer.decode(layer.encode(x).z)
        assert ((back - x).abs() <= 1e-5 * x.abs() + 1e-2).all(), transformer


@torch.no_grad()
def test_changed_weights_are_used():
    """Nothing of a call is kept, though fused optimizers change weights and raise no version."""
    layer = MaskedAutoregressive(5, hidden=(16,)).double()
    z = torch.randn(3, 5, dtype=torch.float64)
    before = layer.decode(z)
    for parameter in layer.parameters():
        parameter.data.mul_(1.5)
    torch.testing.assert_close(layer.encode(layer.decode(z)).z, z)
    assert (layer.decode(z) - before).abs().max() > 1e-3


def test_gradients_use_steps():
    layer = MaskedAutoregressive(4, hidden=(8,)).double()
    z = torch.randn(3, 4, dtype=torch.float64)
    with torch.no_grad():
        value = layer.decode(z)
    live = layer.decode(z)
    torch.testing.assert_close(live, value)
    assert torch.autograd.grad(live.sum(), layer.network.last.weight)[0].abs().sum() > 0


@torch.no_grad()
def test_a_missing_context_is_an_error():
    with pytest.raises(InputError, match="needs a context of width 3"):
        masked_inverse.solve_autoregressive(
            make(4, TRANSFORMERS[1], context=3), TRANSFORMERS[1], torch.zeros(4, 2, dtype=torch.float64)
        )


@torch.no_grad()
def test_no_rows():
    x, slope = masked_inverse.solve_autoregressive(
        make(4, TRANSFORMERS[1]), TRANSFORMERS[1], torch.zeros(4, 0, dtype=torch.float64)
    )
    assert x.shape == slope.shape == (4, 0)


def test_other_transformers_use_plain_operations():
    assert masked_inverse.native_settings(GatedTransformer()) is None
    assert masked_inverse.native_settings(CircularSplineTransformer()) is None
