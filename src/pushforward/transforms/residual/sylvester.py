"""Sylvester flow: a planar flow with several directions at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.numerics import Noise, monotone_root, softplus_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.linear.linear import reflections_product, whole_precision
from pushforward.transforms.residual.planar import MIN_SLOPE, ridge_slope
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["Sylvester"]


@register("transforms")
class Sylvester(Transform):
    """z = x + Q R tanh(R' Q^T x + b) with Q orthonormal D x M and R, R' upper triangular (van den Berg et al. 2018).

    Contribution: sum_i log(1 + (1 - tanh_i^2) R_ii R'_ii), by Sylvester's determinant identity. Invertible because
    R'_ii > 0 and R_ii R'_ii >= 1e-3 - 1. Q is made of M Householder reflections. Decoding is exact: in the
    coordinates Q^T x the system is triangular, so M scalar monotone equations are solved from the last to the first,
    each with its exact gradient.

    Args:
        features: width D of the vectors.
        rank: M, from 1 to D.
        seed: of the starting weights, near the identity.

    Raises:
        ConfigError: if the event is not a vector, or the rank is not in 1, ..., D.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Sylvester
        >>> sylvester = Sylvester(3, rank=2)
        >>> x = torch.tensor([[1.0, -2.0, 0.5]])
        >>> torch.allclose(sylvester.decode(sylvester.encode(x).z), x, atol=1e-6)
        True
    """

    def __init__(self, features: int | Shape, rank: int, seed: int = 0) -> None:
        super().__init__(features)
        self.features, self.rank, self.seed = features, rank, seed
        width = vector_width(features, "Sylvester")
        if not 1 <= rank <= width:
            raise ConfigError(f"rank must lie in 1, ..., {width}; got {rank}.")
        start = seeded_normal(2 * rank + 3, rank, seed=seed)
        self.vectors = nn.Parameter(seeded_normal(rank, width, seed=seed + 1))
        self.outer = nn.Parameter(0.3 * start[:rank] / math.sqrt(rank))
        self.inner = nn.Parameter(0.3 * start[rank : 2 * rank] / math.sqrt(rank))
        self.raw_slope = nn.Parameter(0.3 * start[-3])
        self.raw_inner = nn.Parameter(0.3 * start[-2])
        self.bias = nn.Parameter(0.3 * start[-1])

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """X + Q R tanh(R' Q^T x + b)."""
        with whole_precision(x):
            frame, outer, inner, slope = self._factors(x)
            x = x.to(frame.dtype)
            ridge = torch.tanh(x @ frame @ inner.mT + self.bias)
            z = x + ridge @ outer.mT @ frame.mT
            return Step(z, ridge_slope(ridge, slope).log().sum(-1))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Back-substitution over the M coordinates of Q^T x, then z - Q R tanh."""
        with whole_precision(z):
            frame, outer, inner, slope = self._factors(z)
            z = z.to(frame.dtype)
            target = z @ frame
            known: list[Tensor] = []
            ridges: list[Tensor] = []
            for i in reversed(range(self.rank)):
                shift, inside = target[..., i], self.bias[i].expand(target.shape[:-1])
                for j, (y, ridge) in enumerate(zip(known, ridges, strict=True), start=i + 1):
                    shift = shift - outer[i, j] * ridge
                    inside = inside + inner[i, j] * y
                y = _solve(shift, inside, outer[i, i], inner[i, i], slope[i])
                known.insert(0, y)
                ridges.insert(0, torch.tanh(inner[i, i] * y + inside))
            return z - torch.stack(ridges, -1) @ outer.mT @ frame.mT

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Q ``(D, M)``, R and R' ``(M, M)``, and 1 + R_ii R'_ii ``(M,)``."""
        dtype = torch.promote_types(self.vectors.dtype, like.dtype)
        units, mixed = reflections_product(self.vectors.to(dtype))
        identity = torch.eye(units.shape[1], dtype=dtype, device=units.device)
        frame = (identity - units.mT @ mixed)[:, : self.rank]
        slope = softplus_positive(self.raw_slope.to(dtype), MIN_SLOPE)
        inner_diagonal = softplus_positive(self.raw_inner.to(dtype), MIN_SLOPE)
        outer = self.outer.to(dtype).triu(1) + torch.diag((slope - 1) / inner_diagonal)
        return frame, outer, self.inner.to(dtype).triu(1) + torch.diag(inner_diagonal), slope


def _solve(target: Tensor, inside: Tensor, outer: Tensor, inner: Tensor, slope: Tensor) -> Tensor:
    """The y with y + outer tanh(inner y + inside) = target."""

    def function(y: Tensor) -> tuple[Tensor, Tensor]:
        ridge = torch.tanh(inner * y + inside)
        return y + outer * ridge, ridge_slope(ridge, slope)

    reach = outer.detach().abs()
    return monotone_root(function, target, target.detach() - reach, target.detach() + reach, doublings=0)
