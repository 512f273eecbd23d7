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
        self.top = self.log_sum.detach()
        self.weight, self.weight_squares = torch.ones_like(self.top), torch.zeros_like(self.top)
        self.center = torch.where(torch.isinf(first), 0.0, first).detach().double()
        self.squares = torch.zeros_like(self.center)

    def add(self, value: Tensor) -> None:
        """Add a tensor; infinite entries count as 0 in the standard error."""
        self.count += 1
        self.sum = self.sum + value.double()
        self.log_sum = logmeanexp(torch.stack((self.log_sum, value.double())), 0) + math.log(2.0)
        self._add_weight(value.detach().double())
        finite = torch.where(torch.isinf(value), 0.0, value).detach().double()
        step = finite - self.center
        self.center = self.center + step / self.count
        self.squares = self.squares + step * (finite - self.center)

    def _add_weight(self, value: Tensor) -> None:
        """Mean and squared deviations of exp(value - top), where ``top`` is the largest value so far."""
        top = torch.maximum(self.top, value)
        safe = torch.where(torch.isfinite(top), top, 0.0)
        ratio = torch.exp(torch.where(torch.isfinite(self.top), self.top - safe, -math.inf))
        self.weight, self.weight_squares = self.weight * ratio, self.weight_squares * ratio.square()
        step = torch.exp(torch.where(torch.isfinite(value), value - safe, -math.inf)) - self.weight
        self.weight = self.weight + step / self.count
        self.weight_squares = self.weight_squares + step * (step - step / self.count)
        self.top = top

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
        error = (self.weight_squares / ((self.count - 1) * self.count)).sqrt()
        return torch.where(torch.isfinite(self.log_sum), error / self.weight, 0.0).to(self.dtype)
