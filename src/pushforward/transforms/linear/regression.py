"""Whitened residuals of a linear regression on the context, as part of the chain."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.errors import InputError
from pushforward.numerics import Noise, full_precision
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, check_context
from pushforward.transforms.linear.whiten import Whiten, standard_units
from pushforward.transforms.validation import vector_width

__all__ = ["Regression"]


@register("transforms")
class Regression(Transform):
    """z = W (x - A c - b): the residual of a ridge regression of x on the context c, whitened so that its covariance is I.

    A conditional flow that begins with it starts at the best linear-Gaussian model of x given c and learns only the
    departure from it. Contribution: log abs det W, the same for all rows.

    It is the identity until :meth:`initialize` is called. The penalty minimizes the generalized cross-validation error
    (Golub, Heath, Wahba 1979), summed over the coordinates in units of their variance; with few rows and a wide context it
    shrinks A to 0. Columns of the context whose standard deviations differ by more than 1e3 are penalized in units of these.

    Args:
        features: width D of the vectors.
        context: width of the context.

    Raises:
        ConfigError: if the event is not a vector, or the context has no width.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Regression
        >>> context = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> noise = 0.1 * torch.randn(500, 1, generator=torch.Generator().manual_seed(1))
        >>> regression = Regression(1, context=2)
        >>> z = regression.initialize(context.sum(1, keepdim=True) + noise, context)
        >>> abs(float(z.std()) - 1) < 0.01, (regression.slopes - 1).abs().max().item() < 0.02
        (True, True)
    """

    supports_float64 = False  # a product with the context rounds in its type
    slopes: Tensor
    center: Tensor

    def __init__(self, features: int | Shape, *, context: int) -> None:
        super().__init__(features)
        self.features, self.context = features, check_integer("context", context)
        width = vector_width(features, "Regression")
        self.whiten = Whiten(width, units=True)
        self.register_buffer("slopes", torch.zeros(width, self.context))
        self.register_buffer("center", torch.zeros(self.context))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """W (x - A c - b)."""
        return self.whiten.encode(x - self._shift(context, x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """W^-1 z + A c + b."""
        return self.whiten.decode(z) + self._shift(context, z)

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """As ``decode``, with the contribution."""
        return self.decode(z, context), self.whiten.contribution.expand(self.batch_shape(z))

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Fit the regression and whiten its residual, unless that was done; return z.

        Raises:
            InputError: if there is no row, or no context.
        """
        if not self.whiten.initialized:
            check_context(context, self.context, "Regression")
            assert context is not None
            rows = x.reshape(-1, *self.in_shape).double()
            if len(rows) == 0:
                raise InputError("a regression needs at least one row; got an empty batch. Pass the training rows.")
            inputs = context.expand(*x.shape[:-1], -1).reshape(-1, self.context).double()
            self.center.copy_(inputs.mean(0))
            inputs = inputs - inputs.mean(0)
            unit = standard_units(inputs)  # a penalty in the units of a large column would remove a small one
            self.slopes.copy_(_ridge(inputs / unit, rows - rows.mean(0)) / unit)
            self.whiten.initialize(x - self._shift(context, x))
        return self.encode(x, context).z

    def _shift(self, context: Tensor | None, x: Tensor) -> Tensor:
        check_context(context, self.context, "Regression")
        assert context is not None
        with full_precision(x):
            return (context.to(x.dtype) - self.center) @ self.slopes.mT


def _ridge(inputs: Tensor, outputs: Tensor) -> Tensor:
    """Slopes ``(D, width)`` of centered outputs on centered inputs, with the penalty that cross-validates best."""
    count = len(inputs)
    values, axes = torch.linalg.eigh(inputs.mT @ inputs / count)
    values = values.clamp(min=0.0)
    products = axes.mT @ (inputs.mT @ outputs) / count  # (width, D)
    variance = outputs.square().mean(0)
    scale = torch.where(variance > 0, variance, 1.0)
    # For each row and unit of context variance. Made here, as a tensor of the module would stay on one device.
    tried = torch.logspace(-8, 2, 21, dtype=values.dtype, device=values.device)
    penalties = (values.max().clamp(min=1e-300) * tried)[:, None]
    shrunk = 1 / (values + penalties)  # (penalties, width)
    explained = (2 * shrunk - values * shrunk.square()) @ (products.square() / scale)
    residual = (variance / scale - explained).clamp(min=0.0).sum(1)
    freedom = 1 - (1 + (values * shrunk).sum(1)) / count  # 1: the intercept
    error = torch.where(freedom > 0.05, residual / freedom.clamp(min=0.05).square(), torch.inf)
    best = int(error.argmin())
    return (axes @ (shrunk[best][:, None] * products)).mT
