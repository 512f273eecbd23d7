"""Standardization with the mean and standard deviation of the training rows, as part of the chain."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import InputError
from pushforward.numerics import Noise, sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform

__all__ = ["Standardize", "moments"]


def moments(x: Tensor, shape: Shape, statistic: Shape) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all rows, and over the positions where ``statistic`` has size 1, in float64.

    Args:
        x: ``(*batch, *shape)``, at least one row.
        shape: event shape.
        statistic: shape of the result, of the same length as ``shape``.

    Returns:
        Two tensors of shape ``statistic``; the deviation is the population's, and exactly 0 where all values are equal.

    Raises:
        InputError: if there is no row.
    """
    rows = x.detach().reshape(-1, *shape)
    if rows.shape[0] == 0:
        raise InputError("statistics of the training data need at least one row; got an empty batch.")
    dims = (0, *(place + 1 for place, size in enumerate(statistic) if size != shape[place]))
    wide = rows.double()
    mean = wide.mean(dims, keepdim=True)
    std = (wide - mean).square().mean(dims, keepdim=True).sqrt()
    # Rounding of the mean would give a constant column a tiny deviation, so equality is asked for directly.
    constant = rows.amax(dims, keepdim=True) == rows.amin(dims, keepdim=True)
    varied = ~constant & (std >= torch.finfo(torch.float32).tiny)
    return mean.reshape(statistic), torch.where(varied, std, 0.0).reshape(statistic)


def quartiles(x: Tensor, shape: Shape, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Median and interquartile range / 1.349 over all rows, in float64; ``deviation`` where the range is 0."""
    ordered = x.detach().reshape(-1, *shape).double().sort(0).values
    last = ordered.shape[0] - 1
    low, middle, high = (ordered[round(share * last)] for share in (0.25, 0.5, 0.75))
    spread = (high - low) / 1.349
    return middle, torch.where(spread > 1e-6 * deviation, spread, deviation)


@register("transforms")
class Standardize(Transform):
    """z = (x - mean) / scale with the mean and standard deviation of each coordinate over the training rows.

    Contribution: -sum log scale. The identity until :meth:`initialize` has seen data; a constant column keeps scale 1.

    Args:
        features: event shape.
        robust: use the median and the interquartile range / 1.349 (a normal's standard deviation) instead, so that a
            heavy tail cannot squeeze the bulk; a coordinate whose quartiles coincide falls back to the deviation.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Standardize
        >>> scaler = Standardize(1)
        >>> scaler.initialize(torch.tensor([[1.0], [3.0]]))
        tensor([[-1.],
                [ 1.]])
    """

    autoregressive_order = "any"
    mean: Tensor
    scale: Tensor
    initialized: Tensor

    def __init__(self, features: int | Shape, robust: bool = False) -> None:
        super().__init__(features)
        self.features, self.robust = features, robust
        self.register_buffer("mean", torch.zeros(self.in_shape))
        self.register_buffer("scale", torch.ones(self.in_shape))
        self.register_buffer("initialized", torch.tensor(False))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """(x - mean) / scale."""
        contribution = -sum_event(self.scale.log(), len(self.in_shape))
        return Step((x - self.mean) / self.scale, contribution.expand(self.batch_shape(x)))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """As ``encode``, with -log scale of each coordinate."""
        return (x - self.mean) / self.scale, -self.scale.log().expand_as(x)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Scale z + mean."""
        return z * self.scale + self.mean

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set mean and scale from all rows of x, unless they are set; return z.

        Raises:
            InputError: if there is no row.
        """
        if not self.initialized:
            mean, std = moments(x, self.in_shape, self.in_shape)
            if self.robust:
                mean, std = quartiles(x, self.in_shape, std)
            self.mean.copy_(mean)
            self.scale.copy_(torch.where(std > 0, std, 1.0))
            self.initialized.fill_(True)
        return self.encode(x).z
