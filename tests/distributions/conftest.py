"""Helpers of the tests of distributions: mass by quadrature, and samples against a distribution function."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor


@pytest.fixture
def mass() -> Callable[..., float]:
    """Integral of exp(log_prob) over [low, high]^dims by the midpoint rule."""

    def integrate(log_prob: Callable[[Tensor], Tensor], low: float, high: float, dims: int, steps: int) -> float:
        width = (high - low) / steps
        axis = low + width * (torch.arange(steps, dtype=torch.float64) + 0.5)
        grid = torch.stack(torch.meshgrid(*[axis] * dims, indexing="ij"), -1).reshape(-1, dims)
        with torch.no_grad():
            return float(log_prob(grid).exp().sum() * width**dims)

    return integrate


@pytest.fixture
def assert_follows() -> Callable[..., None]:
    """Kolmogorov-Smirnov test of one-dimensional samples against a distribution function."""

    def check(samples: Tensor, cdf: Callable[[np.ndarray], np.ndarray]) -> None:
        result = stats.kstest(samples.detach().double().numpy().ravel(), cdf)
        assert result.pvalue > 1e-3, result

    return check


@pytest.fixture
def numeric_cdf() -> Callable[..., Callable[[np.ndarray], np.ndarray]]:
    """Distribution function of a one-dimensional log-density, by the trapezoid rule."""

    def make(log_prob: Callable[[Tensor], Tensor], low: float, high: float, steps: int = 20_001):
        grid = torch.linspace(low, high, steps, dtype=torch.float64)
        with torch.no_grad():
            density = log_prob(grid[:, None]).exp().numpy()
        total = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1])) * (high - low) / (steps - 1)])
        return lambda x: np.interp(x, grid.numpy(), total)

    return make


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20)
