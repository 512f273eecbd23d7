"""Statistics of many tensors in constant memory."""

from __future__ import annotations

import math

import pytest
import scipy.special
import scipy.stats
import torch

from pushforward.numerics import (
    RunningMean,
)


def rows(count: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(count, width, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class TestRunningMean:
    def test_against_all_at_once(self):
        values = 300 * rows(40, 5) - 1e4
        values[3, 0] = values[0, 1] = -math.inf
        values[:, 2] = -math.inf
        mean = RunningMean(values[0])
        for value in values[1:]:
            mean.add(value)
        expected = scipy.special.logsumexp(values.numpy(), 0) - math.log(40)
        assert mean.log_mean_exp().tolist() == pytest.approx(expected.tolist(), rel=1e-13)
        torch.testing.assert_close(mean.mean(), values.mean(0))
        finite = values.masked_fill(torch.isinf(values), 0.0)
        torch.testing.assert_close(mean.standard_error(), finite.std(0) / math.sqrt(40))

    def test_thousands_of_single_precision_values_keep_their_digits(self):
        values = (rows(5000, 3) * 0.01 - 1000).float()
        mean = RunningMean(values[0])
        for value in values[1:]:
            mean.add(value)
        assert mean.log_mean_exp().dtype is torch.float32
        expected = scipy.special.logsumexp(values.double().numpy(), 0) - math.log(5000)
        assert mean.log_sum.sub(math.log(5000)).tolist() == pytest.approx(expected.tolist(), abs=1e-8)

    def test_impossible_values_have_finite_gradients(self):
        first = torch.tensor([-math.inf, 0.0, -math.inf], dtype=torch.float64, requires_grad=True)
        second = torch.tensor([-math.inf, -math.inf, 1.0], dtype=torch.float64, requires_grad=True)
        mean = RunningMean(first)
        mean.add(second)
        mean.log_mean_exp()[1:].sum().backward()
        assert first.grad.tolist() == [0.0, 1.0, 0.0]
        assert second.grad.tolist() == [0.0, 0.0, 1.0]
