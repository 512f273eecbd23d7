"""Statistics of many tensors in constant memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.numerics.functions import logmeanexp

__all__ = ["RunningMean"]


class RunningMean:
    """Mean, ``log mean exp`` and standard error of a sequence of tensors of one shape, in float64 and constant memory.

    The squared deviations are updated as in Welford 1962.

    Example:
        >>> import torch
        >>> from pushforward.numerics import RunningMean
        >>> mean = RunningMean(torch.tensor([0.0]))
        >>> mean.add(torch.tensor([2.0]))
        >>> mean.mean()
        tensor([1.])
    """

    def __init__(self, first: Tensor) -> None:
        self.dtype, self.count = first.dtype, 1
        self.sum = self.log_sum = first.double()
        self.log_squares = 2 * self.log_sum
        self.center = torch.where(torch.isinf(first), 0.0, first).detach().double()
        self.squares = torch.zeros_like(self.center)

    def add(self, value: Tensor) -> None:
        """Add a tensor; infinite entries count as 0 in the standard error."""
        self.count += 1
        self.sum = self.sum + value.double()
        self.log_sum = logmeanexp(torch.stack((self.log_sum, value.double())), 0) + math.log(2.0)
        self.log_squares = logmeanexp(torch.stack((self.log_squares, 2 * value.double())), 0) + math.log(2.0)
        finite = torch.where(torch.isinf(value), 0.0, value).detach().double()
        step = finite - self.center
        self.center = self.center + step / self.count
        self.squares = self.squares + step * (finite - self.center)

    def mean(self) -> Tensor:
        """The mean; infinite where any tensor is."""
        return (self.sum / self.count).to(self.dtype)

    def log_mean_exp(self) -> Tensor:
        """Log of the mean of the exponentials."""
        return (self.log_sum - math.log(self.count)).to(self.dtype)

    def standard_error(self) -> Tensor:
        """Standard error of the mean; it needs at least two tensors."""
        return (self.squares / ((self.count - 1) * self.count)).sqrt().to(self.dtype)

    def log_mean_exp_error(self) -> Tensor:
        """Standard error of :meth:`log_mean_exp` by the delta method, std(w) / (mean(w) sqrt(k)) with w = exp(v); 0 where it is infinite.

        It needs at least two tensors. If one of k draws has nearly all of the weight it is at most 1, which is then too small.
        """
        share = torch.exp(self.log_squares - 2 * self.log_sum)  # sum w^2 / (sum w)^2, from 1 / k to 1
        relative = ((self.count * share - 1).clamp(min=0) / (self.count - 1)).sqrt()
        return torch.where(torch.isfinite(self.log_sum), relative, 0.0).to(self.dtype)
