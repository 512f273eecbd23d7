"""Whitening with the covariance of the training rows, as part of the chain."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import InputError
from pushforward.numerics import Noise, full_precision, sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.validation import vector_width

__all__ = ["Whiten"]


@register("transforms")
class Whiten(Transform):
    """z = S^-1 V^T (x - mean), where V S^2 V^T is the covariance of the training rows, so that their z have covariance I.

    Contribution: -sum log S_i. It is the identity until :meth:`initialize` is called. A direction that does not vary (its
    standard deviation is below 1e-6 of the largest) keeps scale 1.

    Args:
        features: width D of the vectors.

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
    initialized: Tensor

    def __init__(self, features: int | Shape) -> None:
        super().__init__(features)
        self.features = features
        width = vector_width(features, "Whiten")
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("axes", torch.eye(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("initialized", torch.tensor(False))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """S^-1 V^T (x - mean)."""
        with full_precision(x):
            z = (x - self.mean) @ self.axes / self.scale
        return Step(z, -sum_event(self.scale.log(), 1).expand(self.batch_shape(x)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """V S z + mean."""
        with full_precision(z):
            return (z * self.scale) @ self.axes.mT + self.mean

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
            # From the singular values of the rows: forming the covariance would square the ratio of the deviations.
            _, values, axes = torch.linalg.svd(rows - mean, full_matrices=len(rows) < rows.shape[1])
            scale = torch.zeros_like(mean)
            scale[: len(values)] = values / len(rows) ** 0.5
            self.mean.copy_(mean)
            self.axes.copy_(axes.mT)
            self.scale.copy_(torch.where(scale > 1e-6 * scale.max().clamp(min=1e-30), scale, 1.0))
            self.initialized.fill_(True)
        return self.encode(x).z
