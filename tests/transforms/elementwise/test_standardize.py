"""Standardize: statistics against numpy, the start, constant columns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pushforward.errors import InputError
from pushforward.transforms import Affine, Chain, Standardize


def test_statistics_and_contribution(check):
    x = check.normal(500, 3) * torch.tensor([1e-3, 1.0, 1e4]) + torch.tensor([5.0, 0.0, -1e5])
    transform = Standardize(3).double()
    z = transform.initialize(x)
    expected = (x.numpy() - x.numpy().mean(0)) / x.numpy().std(0)
    np.testing.assert_allclose(z.numpy(), expected, rtol=1e-9, atol=1e-9)
    check.contribution(transform, x[:5])
    check.round_trip(transform, x, 1e-10)
    check.shapes(transform.float())
    check.extremes(Standardize(3))
    check.compiles(transform.float(), x.float())


def test_identity_before_and_only_once(check):
    transform = Standardize(2)
    x = check.normal(10, 2, dtype=torch.float32)
    torch.testing.assert_close(transform.encode(x).z, x, atol=0, rtol=0)
    assert not transform.initialized
    transform.initialize(x)
    state = {name: value.clone() for name, value in transform.state_dict().items()}
    transform.initialize(5 * x + 1)
    assert all(torch.equal(state[name], value) for name, value in transform.state_dict().items())
    assert set(state) == {"mean", "scale", "initialized"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.7, 1e8, -1e-30])
def test_constant_column_keeps_scale_one(value, dtype):
    # The mean of equal numbers is rounded, so a naive deviation would be tiny and not zero.
    transform = Standardize(1).to(dtype)
    z = transform.initialize(torch.full((1001, 1), value, dtype=dtype))
    assert transform.scale.item() == 1.0
    assert z.abs().max() <= 1e-6 * abs(value)


def test_one_row_and_none():
    transform = Standardize(2)
    with pytest.raises(InputError, match="at least one row"):
        transform.initialize(torch.zeros(0, 2))
    assert torch.equal(transform.initialize(torch.ones(1, 2)), torch.zeros(1, 2))


def test_float32_mean_of_many_rows():
    # Summed in float32, ten million-ish values of 1e4 would lose the digits of the mean.
    x = 1e4 + torch.rand(200_000, 1, generator=torch.Generator().manual_seed(0))
    transform = Standardize(1)
    transform.initialize(x)
    assert transform.mean.item() == pytest.approx(x.double().mean().item(), rel=1e-7)
    assert transform.scale.item() == pytest.approx(x.double().std(correction=0).item(), rel=1e-6)


def test_image_and_batch_dimensions():
    x = torch.arange(2 * 5 * 12, dtype=torch.float32).reshape(2, 5, 3, 2, 2) ** 1.5
    transform = Standardize((3, 2, 2))
    z = transform.initialize(x)
    torch.testing.assert_close(z.mean((0, 1)), torch.zeros(3, 2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std((0, 1), correction=0), torch.ones(3, 2, 2))


def test_chain_initializes_on_the_intermediate_values(check):
    chain = Chain(Affine(2, scale=3.0), Standardize(2))
    x = check.normal(50, 2, dtype=torch.float32)
    z = chain.initialize(x)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2))


def test_robust_uses_quartiles():
    x = torch.linspace(-1, 1, 1001).reshape(-1, 1)
    x[-1] = 1e6
    transform = Standardize(1, robust=True)
    transform.initialize(x)
    assert transform.mean.item() == pytest.approx(0.0, abs=1e-3)
    assert transform.scale.item() == pytest.approx(1 / 1.349, rel=1e-2)
