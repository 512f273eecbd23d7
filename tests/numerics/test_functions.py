"""Elementary functions and sums against scipy and exact values."""

from __future__ import annotations

import math

import pytest
import scipy.special
import scipy.stats
import torch

from pushforward.numerics import (
    log1mexp,
    log1p_square,
    logmeanexp,
    sum_event,
)

FLOATS = [torch.float32, torch.float64]


def rows(count: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class TestSumEvent:
    def test_no_event_dimensions(self):
        x = rows(3, 2)
        assert sum_event(x, 0) is x

    @pytest.mark.parametrize("dims", [1, 2, 3])
    def test_sums_the_last_dimensions(self, dims):
        x = torch.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
        torch.testing.assert_close(sum_event(x, dims), x.sum(tuple(range(-dims, 0))))
        assert sum_event(x, dims).shape == x.shape[: 4 - dims]

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
    def test_keeps_the_type(self, dtype):
        assert sum_event(torch.ones(2, 5000, dtype=dtype), 1).dtype is dtype

    def test_long_sums_keep_their_digits(self):
        # 2^24 + 1 + 1 + ... : in float32 each 1 is lost beside 2^24.
        x = torch.ones(1, 3001)
        x[0, 0] = 2.0**24
        assert sum_event(x, 1).item() == 2.0**24 + 3000
        # 1e8 terms' worth of cancellation: the exact sum is 3001 - 1.
        y = torch.tensor([1e8, *[1.0] * 3000, -1e8]).reshape(1, -1)
        assert sum_event(y, 1).item() == 3000.0

    def test_an_empty_batch(self):
        assert sum_event(torch.zeros(0, 3), 1).shape == (0,)


class TestLogarithms:
    @pytest.mark.parametrize("x", [1e-300, 1e-20, 1e-9, 1e-3, 0.6, 0.6931, 0.6932, 1.0, 20.0, 50.0, 700.0])
    def test_log1mexp(self, x):
        # Independent: log(1 - exp(-x)) = log(2 sinh(x / 2)) - x / 2, and for large x the series -exp(-x).
        expected = -math.exp(-x) if x > 40 else math.log(2 * math.sinh(x / 2)) - x / 2
        t = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        y = log1mexp(t)
        assert y.item() == pytest.approx(expected, rel=1e-12)
        (slope,) = torch.autograd.grad(y, t)
        assert slope.item() == pytest.approx(1 / math.expm1(x), rel=1e-12)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_log1mexp_has_finite_gradients_at_both_ends(self, dtype):
        x = torch.tensor([1e-30, 1e-9, 0.693, 100.0, 1e5, 1e30], dtype=dtype, requires_grad=True)
        log1mexp(x).sum().backward()
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()

    @pytest.mark.parametrize("dim", [0, 1, -1])
    def test_logmeanexp(self, dim):
        x = 30 * rows(4, 5)
        expected = scipy.special.logsumexp(x.numpy(), axis=dim) - math.log(x.shape[dim])
        torch.testing.assert_close(logmeanexp(x, dim), torch.from_numpy(expected), rtol=1e-13, atol=1e-13)

    def test_logmeanexp_of_impossible_terms(self):
        x = torch.tensor(
            [[-math.inf, -math.inf], [0.0, -math.inf], [-1e4, -1e4]], dtype=torch.float64, requires_grad=True
        )
        y = logmeanexp(x, 1)
        y.sum().backward()
        torch.testing.assert_close(y.detach(), torch.tensor([-math.inf, -math.log(2.0), -1e4]).double())
        assert x.grad is not None
        expected = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
        torch.testing.assert_close(x.grad, expected, rtol=0, atol=1e-11)

    def test_logmeanexp_of_an_empty_batch(self):
        assert logmeanexp(torch.zeros(3, 0), 0).shape == (0,)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_log1p_square(self, dtype):
        x = torch.tensor([0.0, 1e-10, -0.5, 1.0, -3.0, 1e15, -1e30], dtype=dtype)
        expected = [math.log1p(v * v) for v in x.double().tolist()]
        torch.testing.assert_close(log1p_square(x).double(), torch.tensor(expected).double(), rtol=3e-7, atol=1e-40)

    @pytest.mark.parametrize("dtype", FLOATS)
    def test_log1p_square_has_the_right_gradient_everywhere(self, dtype):
        x = torch.tensor([0.0, 1e-20, 0.5, 1.0, -2.0, 1e15, 1e30], dtype=dtype, requires_grad=True)
        log1p_square(x).sum().backward()
        expected = [2 * v / (1 + v * v) for v in x.detach().double().tolist()]
        assert x.grad is not None
        torch.testing.assert_close(x.grad.double(), torch.tensor(expected).double(), rtol=1e-6, atol=0)
