"""Learned linear transform held as an orthogonal times a triangular matrix."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.numerics import Noise, softplus_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.linear.linear import MIN_DIAGONAL, reflections_product, whole_precision
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["QRLinear"]


@register("transforms")
class QRLinear(Transform):
    """z = Q R x + b with Q orthogonal and R upper triangular; contribution sum log R_ii (Hoogeboom et al. 2019, sec. 3.4).

    Q is a product of K Householder reflections, as in :class:`~pushforward.transforms.Householder`. The diagonal of R is
    positive, at least 1e-3, by a softplus. With K = D - 1 every matrix whose determinant has the sign (-1)^K is within
    reach (to the bound on the diagonal), without the fixed permutation that LU factors need. The start is a random
    rotation: R is the identity.
    Decoding is Q^T and one triangular solve, O(D^2).

    Args:
        features: width D of the vectors.
        reflections: K; None for D.
        bias: whether b is learned; else it is 0.
        seed: of the starting vectors of Q.

    Raises:
        ConfigError: if the event is not a vector, or K is not positive.

    Example:
        >>> import torch
        >>> from pushforward.transforms import QRLinear
        >>> linear = QRLinear(2)
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> torch.allclose(linear.decode(linear.encode(x).z), x, atol=1e-6)
        True
    """

    def __init__(self, features: int | Shape, reflections: int | None = None, bias: bool = True, seed: int = 0) -> None:
        super().__init__(features)
        self.features, self.reflections, self.bias, self.seed = features, reflections, bias, seed
        width = vector_width(features, "QRLinear")
        count = width if reflections is None else reflections
        if count < 1:
            raise ConfigError(f"reflections must be at least 1; got {reflections}.")
        self.vectors = nn.Parameter(seeded_normal(count, width, seed=seed))
        self.packed = nn.Parameter(torch.zeros(width, width))  # R above the diagonal, its raw diagonal on it
        self.offset = nn.Parameter(torch.zeros(width)) if bias else None

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Q R x + b."""
        with whole_precision(x):
            units, mixed, upper, diagonal = self._factors(x)
            y = x.to(upper.dtype) @ upper.mT
            z = y - (y @ mixed.mT) @ units
            z = z if self.offset is None else z + self.offset
            return Step(z, diagonal.log().sum().expand(self.batch_shape(x)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """R^-1 Q^T (z - b)."""
        with whole_precision(z):
            units, mixed, upper, _ = self._factors(z)
            z = z.to(upper.dtype)
            rows = (z if self.offset is None else z - self.offset).reshape(-1, z.shape[-1])
            rows = rows - (rows @ units.mT) @ mixed
            return torch.linalg.solve_triangular(upper.mT, rows, upper=False, left=False).reshape(z.shape)

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The reflections of Q as U and M, then R and its diagonal."""
        dtype = torch.promote_types(self.packed.dtype, like.dtype)
        packed = self.packed.to(dtype)
        diagonal = softplus_positive(packed.diagonal(), MIN_DIAGONAL)
        return *reflections_product(self.vectors.to(dtype)), packed.triu(1) + torch.diag(diagonal), diagonal
