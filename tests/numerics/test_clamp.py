"""Bounds on inputs and outputs of networks."""

from __future__ import annotations

import math

import pytest
import torch

from pushforward.numerics import (
    bound_input,
    bound_square,
    cast_finite,
    inverse_softplus,
    soft_clamp,
    softplus_positive,
    split_infinite,
)

FLOATS = [torch.float32, torch.float64]


class TestClamps:
    def test_soft_clamp_is_the_identity_near_zero_and_bounded(self):
        x = torch.tensor([0.0, 1e-4, -1e-4, 1e30, -1e30, math.inf, -math.inf], dtype=torch.float64, requires_grad=True)
        y = soft_clamp(x, 3.0)
        y.sum().backward()
        # tanh(u) = u - u^3 / 3 + ...
        torch.testing.assert_close(y[:3], x[:3] - x[:3] ** 3 / 27, rtol=0, atol=1e-20)
        assert y[3:].tolist() == [3.0, -3.0, 3.0, -3.0]
        assert x.grad is not None
        torch.testing.assert_close(x.grad, torch.tensor([1.0, 1.0, 1.0, 0, 0, 0, 0]).double(), rtol=0, atol=1e-8)

    def test_bound_input(self):
        x = torch.tensor([-1e20, -2.0, 0.5, 2.0, math.inf])
        assert bound_input(x, 1.0).tolist() == [-1.0, -1.0, 0.5, 1.0, 1.0]

    @pytest.mark.parametrize("dtype", FLOATS)
    @pytest.mark.parametrize("terms", [1, 7, 1000])
    def test_squares_of_bounded_inputs_sum_to_a_finite_number(self, dtype, terms):
        far = torch.full((terms,), torch.finfo(dtype).max, dtype=dtype)
        assert torch.isfinite((bound_square(far, terms) ** 2).sum())
        near = torch.tensor([-1e15, 0.0, 3.0], dtype=dtype)
        assert torch.equal(bound_square(near, terms), near)

    def test_split_infinite(self):
        x = torch.tensor([[1.0, 2.0], [math.inf, 2.0], [1.0, -math.inf], [math.inf, math.inf]])
        finite, far = split_infinite(x, 1)
        assert finite.tolist() == [[1.0, 2.0], [0.0, 2.0], [1.0, 0.0], [0.0, 0.0]]
        assert far.tolist() == [0.0, -math.inf, -math.inf, -math.inf]
        finite, far = split_infinite(x[:, 0], 0)
        assert finite.tolist() == [1.0, 0.0, 1.0, 0.0]
        assert far.tolist() == [0.0, -math.inf, 0.0, -math.inf]

    @pytest.mark.parametrize("y", [1e-300, 1e-8, 0.5, 1.0, 10.0, 700.0, 1e10])
    def test_inverse_softplus(self, y):
        x = inverse_softplus(y)
        assert math.log1p(math.exp(-abs(x))) + max(x, 0.0) == pytest.approx(y, rel=1e-12)

    @pytest.mark.parametrize("minimum", [1e-3, 0.5])
    def test_softplus_positive(self, minimum):
        raw = torch.tensor([0.0, -1e4, 1e4], dtype=torch.float64)
        y = softplus_positive(raw, minimum)
        assert y[0].item() == pytest.approx(1.0, abs=1e-15)
        assert y[1].item() == pytest.approx(minimum, abs=1e-15)
        assert y[2] > 9e3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_finite_numbers_keep_the_type_they_are_cast_to(dtype):
    x = torch.tensor([1.0, 1e300, -1e300, math.inf, math.nan], dtype=torch.float64)
    found = cast_finite(x, dtype)
    assert found.dtype is dtype
    assert torch.isfinite(found[:3]).all()
    assert found[1] > 1e4 > -1e4 > found[2]
    assert found[3].isinf()
    assert found[4].isnan()
