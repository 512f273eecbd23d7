"""Whitening with the covariance of the training rows, as part of the chain."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import InputError
from pushforward.numerics import Noise, full_precision, sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.validation import vector_width

__all__ = ["Whiten", "standard_units"]

_ALIKE = 1e3
"""Ratio of deviations up to which float32 turns coordinates without loss; it rounds to 6e-8 of the largest."""


@register("transforms")
class Whiten(Transform):
    """z = S^-1 V^T U^-1 (x - mean), where U V S^2 V^T U is the covariance of the training rows, so that their z have covariance I.

    Contribution: -sum log S_i - sum log U_i. It is the identity until :meth:`initialize` is called. A direction that does not vary (its
    standard deviation is below 1e-6 of the largest) keeps scale 1. The diagonal matrix U is I, or the units of the coordinates.

    Args:
        features: width D of the vectors.
        units: whether small coordinates have small units, such as kilograms of a particle beside kilometers. If the standard deviations
            of coordinates differ by more than 1e3, U has these deviations; without it, float32 rounds small coordinates away.

    Raises:
        ConfigError: if the event is not a vector.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Whiten
        >>> whiten = Whiten(2)
        >>> z = whiten.initialize(torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) @ torch.tensor([[2.0, 1.0], [0.0, 1.0]]))
        >>> torch.allclose(torch.cov(z.mT, correction=0), torch.eye(2), atol=1e-4)
        True
    """

    supports_float64 = False  # the axes are orthogonal only to the rounding of their type
    mean: Tensor
    axes: Tensor
    scale: Tensor
    unit: Tensor | None
    initialized: Tensor

    def __init__(self, features: int | Shape, units: bool = False) -> None:
        super().__init__(features)
        self.features, self.units = features, units
        width = vector_width(features, "Whiten")
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("axes", torch.eye(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("unit", torch.ones(width) if units else None)
        self.register_buffer("initialized", torch.tensor(False))

    @property
    def contribution(self) -> Tensor:
        """-sum log S_i - sum log U_i."""
        logs = self.scale.log()
        return -sum_event(logs if self.unit is None else logs + self.unit.log(), 1)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """S^-1 V^T U^-1 (x - mean)."""
        with full_precision(x):
            z = self._in_units(x - self.mean) @ self.axes / self.scale
        return Step(z, self.contribution.expand(self.batch_shape(x)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """U V S z + mean."""
        with full_precision(z):
            x = (z * self.scale) @ self.axes.mT
            return (x if self.unit is None else x * self.unit) + self.mean

    def _in_units(self, x: Tensor) -> Tensor:
        return x if self.unit is None else x / self.unit

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set mean and covariance from all rows of x, unless they are set; return z.

        Raises:
            InputError: if there is no row.
        """
        if not self.initialized:
            rows = x.reshape(-1, *self.in_shape).double()
            if len(rows) == 0:
                raise InputError(
                    "statistics of the training data need at least one row; got an empty batch. Pass the training rows."
                )
            mean = rows.mean(0)
            if self.unit is not None:
                self.unit.copy_(standard_units(rows - mean))
            # From the singular values of the rows: forming the covariance would square the ratio of the deviations.
            _, values, axes = torch.linalg.svd(self._in_units(rows - mean), full_matrices=len(rows) < rows.shape[1])
            scale = torch.zeros_like(mean)
            scale[: len(values)] = values / len(rows) ** 0.5
            self.mean.copy_(mean)
            self.axes.copy_(axes.mT)
            self.scale.copy_(torch.where(scale > 1e-6 * scale.max().clamp(min=1e-30), scale, 1.0))
            self.initialized.fill_(True)
        return self.encode(x).z


def standard_units(rows: Tensor) -> Tensor:
    """Standard deviations of the coordinates of centered rows if they differ much, else 1; 1 for a constant coordinate."""
    deviation = rows.square().mean(0).sqrt()
    varies = rows.amax(0) > rows.amin(0)  # rounding of the mean gives a constant coordinate a tiny deviation
    if not varies.any() or deviation[varies].max() <= _ALIKE * deviation[varies].min():
        return torch.ones_like(deviation)
    return torch.where(varies, deviation, 1.0)
