"""Standardisation with the mean and standard deviation of the training rows, as part of the chain."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import InputError
from pushforward.maps.core import Map, Shape, Step
from pushforward.numerics import Noise, sum_event
from pushforward.registry import register

__all__ = ["Standardize", "moments"]


def moments(x: Tensor, shape: Shape, statistic: Shape) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all rows, and over the positions where ``statistic`` has size 1, in float64.

    Args:
        x: ``(*batch, *shape)``, at least one row.
        shape: event shape.
        statistic: shape of the result, of the same length as ``shape``.

    Returns:
        Two tensors of shape ``statistic``; the deviation is the population's, and 1 where all values are equal.

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
    constant = (rows.amax(dims, keepdim=True) == rows.amin(dims, keepdim=True)) | (std < torch.finfo(x.dtype).tiny)
    return mean.reshape(statistic), torch.where(constant, 1.0, std).reshape(statistic)


@register("maps")
class Standardize(Map):
    """z = (x - mean) / scale with the mean and standard deviation of each coordinate over the training rows.

    Contribution: -sum log scale. The identity until :meth:`initialize` has seen data; a constant column keeps scale 1.

    Args:
        features: event shape.

    Example:
        >>> import torch
        >>> from pushforward.maps import Standardize
        >>> scaler = Standardize(1)
        >>> scaler.initialize(torch.tensor([[1.0], [3.0]]))
        tensor([[-1.],
                [ 1.]])
    """

    mean: Tensor
    scale: Tensor
    initialized: Tensor

    def __init__(self, features: int | Shape) -> None:
        super().__init__(features)
        self.features = features
        self.register_buffer("mean", torch.zeros(self.in_shape))
        self.register_buffer("scale", torch.ones(self.in_shape))
        self.register_buffer("initialized", torch.tensor(False))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """(x - mean) / scale."""
        contribution = -sum_event(self.scale.log(), len(self.in_shape))
        return Step((x - self.mean) / self.scale, contribution.expand(self.batch_shape(x)))

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
            self.mean.copy_(mean)
            self.scale.copy_(std)
            self.initialized.fill_(True)
        return self.encode(x).z
