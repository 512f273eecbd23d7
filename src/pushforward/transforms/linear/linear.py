"""Learned linear transforms of vectors: an LU-factored matrix, and an orthogonal one made of Householder reflections."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.numerics import Noise, softplus_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["Householder", "LULinear", "reflections_product", "whole_precision"]

MIN_DIAGONAL = 1e-3


def whole_precision(x: Tensor) -> torch.autocast:
    """No autocast inside: matrix products in bfloat16 would spoil the inverse and the likelihood."""
    return torch.autocast(x.device.type, enabled=False)


@register("transforms")
class LULinear(Transform):
    """z = L U x + b with L unit lower and U upper triangular; contribution sum log U_ii.

    The diagonal of U is positive, at least 1e-3, by a softplus. The start is the identity. Decoding solves two
    triangular systems, O(D^2). The LU factors of Glow's 1x1 convolution (Kingma and Dhariwal 2018, eq. 10) without its
    fixed permutation: put a :class:`Permutation` before it where that is wanted.

    Args:
        features: width D of the vectors.
        bias: whether b is learned; else it is 0.

    Raises:
        ConfigError: if the event is not a vector.

    Example:
        >>> import torch
        >>> from pushforward.transforms import LULinear
        >>> linear = LULinear(2)
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> torch.allclose(linear.decode(linear.encode(x).z), x)
        True
    """

    def __init__(self, features: int | Shape, bias: bool = True) -> None:
        super().__init__(features)
        self.features, self.bias = features, bias
        width = vector_width(features, "LULinear")
        # One matrix holds both factors, as LAPACK does: L below the diagonal, U above, U's raw diagonal on it.
        self.packed = nn.Parameter(torch.zeros(width, width))
        self.offset = nn.Parameter(torch.zeros(width)) if bias else None

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """L U x + b."""
        with whole_precision(x):
            lower, upper, diagonal = self._factors(x)
            z = x.to(lower.dtype) @ upper.mT @ lower.mT
            z = z if self.offset is None else z + self.offset
            volume = diagonal.log().sum(-1)  # one number, or one for each of several matrices
            return Step(z, (volume.unsqueeze(-1) if volume.dim() else volume).expand(self.batch_shape(x)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """U^-1 L^-1 (z - b)."""
        with whole_precision(z):
            lower, upper, _ = self._factors(z)
            z = z.to(lower.dtype)
            rows = (z if self.offset is None else z - self.offset).reshape(-1, z.shape[-1])
            rows = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False, unitriangular=True)
            rows = torch.linalg.solve_triangular(upper.mT, rows, upper=False, left=False)
            return rows.reshape(z.shape)

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        packed = self.packed.to(torch.promote_types(self.packed.dtype, like.dtype))
        diagonal = softplus_positive(packed.diagonal(dim1=-2, dim2=-1), MIN_DIAGONAL)
        one = torch.eye(packed.shape[-1], dtype=packed.dtype, device=packed.device)
        return packed.tril(-1) + one, packed.triu(1) + torch.diag_embed(diagonal), diagonal


@register("transforms")
class Householder(Transform):
    """z = Q x with Q = H_1 ... H_K orthogonal, H_k = I - 2 v_k v_k^T / (v_k^T v_k); contribution 0.

    Every orthogonal matrix of determinant (-1)^K is within reach at K = D (or D - 1). All K reflections are applied at
    once, as I - U^T T U with a K x K triangular T. The start is random: a dense mixing of the coordinates.

    Args:
        features: width D of the vectors.
        reflections: K; None for D.
        seed: of the starting vectors.

    Raises:
        ConfigError: if the event is not a vector, or K is not positive.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Householder
        >>> z, _ = Householder(3)(torch.tensor([[3.0, 0.0, 4.0]]))
        >>> round(z.norm().item(), 4)                             # lengths are kept
        5.0
    """

    valid_on_manifold = angle_preserving = True

    def __init__(self, features: int | Shape, reflections: int | None = None, seed: int = 0) -> None:
        super().__init__(features)
        self.features, self.reflections, self.seed = features, reflections, seed
        width = vector_width(features, "Householder")
        count = width if reflections is None else reflections
        if count < 1:
            raise ConfigError(f"reflections must be at least 1; got {reflections}.")
        self.vectors = nn.Parameter(seeded_normal(count, width, seed=seed))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Q x."""
        with whole_precision(x):
            units, mixed = reflections_product(self._vectors(x))
            x = x.to(units.dtype)
            return Step(x - (x @ mixed.mT) @ units, self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Q^T z."""
        with whole_precision(z):
            units, mixed = reflections_product(self._vectors(z))
            z = z.to(units.dtype)
            return z - (z @ units.mT) @ mixed

    def _vectors(self, like: Tensor) -> Tensor:
        return self.vectors.to(torch.promote_types(self.vectors.dtype, like.dtype))


def reflections_product(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """U and M, both ``(K, D)``, with H_1 ... H_K = I - U^T M (the UT transform, Joffrain et al. 2006).

    The rows of U are the vectors at unit length, and M = T U solves (I / 2 + strict upper part of U U^T) M = U.
    A vector shorter than about 1e-15 has no direction to speak of; its reflection is left out.

    Args:
        vectors: ``(K, D)``, of any length.
    """
    # A reflection does not depend on its vector's length, so the scaling needs no gradient; without it v^T v of a
    # tiny or huge vector would leave the range of float32.
    largest = vectors.detach().abs().amax(-1, keepdim=True)
    tiny = largest < 1e-15
    scaled = torch.where(tiny, 1.0, vectors / torch.where(tiny, 1.0, largest))
    units = torch.where(tiny, 0.0, scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True))
    half = 0.5 * torch.eye(units.shape[0], dtype=units.dtype, device=units.device)
    mixed = torch.linalg.solve_triangular(half + (units @ units.mT).triu(1), units, upper=True)
    return units, mixed
