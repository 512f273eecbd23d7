"""Learned linear transforms, parameterized by factors with a cheap determinant and inverse: LU, QR, reflections, low rank."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.numerics import Noise, full_precision, softplus_positive
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["Householder", "LULinear", "QRLinear", "WoodburyLinear", "reflections_product"]


MIN_DIAGONAL = 1e-3
_SCALE = 2.0**-20


@register("transforms")
class LULinear(Transform):
    """z = L U x + b with L unit lower and U upper triangular; contribution sum log U_ii.

    A softplus keeps the diagonal of U at least 1e-3. It starts as the identity. Decoding solves two triangular systems,
    O(D^2). These are the LU factors of Glow's 1x1 convolution (Kingma and Dhariwal 2018, eq. 10) without its fixed
    permutation; put a :class:`~pushforward.transforms.Permutation` before it if you want one.

    Args:
        features: width D of the vectors.
        bias: whether b is learned; otherwise it is 0.

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
        # One matrix stores both factors, as in LAPACK: L below the diagonal, U above, and the raw diagonal of U on it.
        self.packed = nn.Parameter(torch.zeros(width, width))
        self.offset = nn.Parameter(torch.zeros(width)) if bias else None

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """L U x + b."""
        with full_precision(x):
            lower, upper, diagonal = self._factors(x)
            z = x.to(lower.dtype) @ upper.mT @ lower.mT
            z = z if self.offset is None else z + self.offset
            log_det = diagonal.log().sum(-1)  # a scalar, or one number for each of several stacked matrices
            return Step(z, (log_det.unsqueeze(-1) if log_det.dim() else log_det).expand(self.batch_shape(x)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """U^-1 L^-1 (z - b)."""
        with full_precision(z):
            lower, upper, _ = self._factors(z)
            z = z.to(lower.dtype)
            rows = (z if self.offset is None else z - self.offset).reshape(-1, z.shape[-1])
            rows = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False, unitriangular=True)
            rows = torch.linalg.solve_triangular(upper.mT, rows, upper=False, left=False)
            return rows.reshape(z.shape)

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        packed = self.packed.to(torch.promote_types(self.packed.dtype, like.dtype))
        diagonal = softplus_positive(packed.diagonal(dim1=-2, dim2=-1), MIN_DIAGONAL)
        identity = torch.eye(packed.shape[-1], dtype=packed.dtype, device=packed.device)
        return packed.tril(-1) + identity, packed.triu(1) + torch.diag_embed(diagonal), diagonal


@register("transforms")
class Householder(Transform):
    """z = Q x with Q = H_1 ... H_K orthogonal, H_k = I - 2 v_k v_k^T / (v_k^T v_k); contribution 0.

    K = D (or D - 1) reflections can represent every orthogonal matrix of determinant (-1)^K. All K reflections are applied
    at once, as I - U^T T U with a triangular K x K matrix T. It starts as a random rotation or reflection.

    Args:
        features: width D of the vectors.
        reflections: number of reflections K; None for D.
        seed: seed of the initial vectors.

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
        check_integer("reflections", reflections, optional=True)
        count = width if reflections is None else reflections
        self.vectors = nn.Parameter(seeded_normal(count, width, seed=seed))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Q x."""
        with full_precision(x):
            units, mixed = reflections_product(self._vectors(x))
            x = x.to(units.dtype)
            return Step(_reflected(x, mixed, units), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Q^T z."""
        with full_precision(z):
            units, mixed = reflections_product(self._vectors(z))
            return _reflected(z.to(units.dtype), units, mixed)

    def _vectors(self, like: Tensor) -> Tensor:
        return self.vectors.to(torch.promote_types(self.vectors.dtype, like.dtype))


@register("transforms")
class QRLinear(Transform):
    """z = Q R x + b with Q orthogonal and R upper triangular; contribution sum log R_ii (Hoogeboom et al. 2019, sec. 3.4).

    Q is a product of K Householder reflections, as in :class:`~pushforward.transforms.Householder`. The diagonal of R is
    at least 1e-3, by a softplus. K = D - 1 reflections can represent every matrix whose determinant has the sign (-1)^K (up
    to the bound on the diagonal), without the fixed permutation that LU factors need. It starts as a random rotation or
    reflection: R is the identity. Decoding applies Q^T and solves one triangular system, O(D^2).

    Args:
        features: width D of the vectors.
        reflections: number of reflections K; None for D.
        bias: whether b is learned; otherwise it is 0.
        seed: seed of the initial vectors of Q.

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
        check_integer("reflections", reflections, optional=True)
        count = width if reflections is None else reflections
        self.vectors = nn.Parameter(seeded_normal(count, width, seed=seed))
        self.packed = nn.Parameter(torch.zeros(width, width))  # R above the diagonal, and its raw diagonal
        self.offset = nn.Parameter(torch.zeros(width)) if bias else None

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Q R x + b."""
        with full_precision(x):
            units, mixed, upper, diagonal = self._factors(x)
            z = _reflected(x.to(upper.dtype) @ upper.mT, mixed, units)
            z = z if self.offset is None else z + self.offset
            return Step(z, diagonal.log().sum().expand(self.batch_shape(x)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """R^-1 Q^T (z - b)."""
        with full_precision(z):
            units, mixed, upper, _ = self._factors(z)
            z = z.to(upper.dtype)
            rows = (z if self.offset is None else z - self.offset).reshape(-1, z.shape[-1])
            rows = _reflected(rows, units, mixed)
            return torch.linalg.solve_triangular(upper.mT, rows, upper=False, left=False).reshape(z.shape)

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The reflections of Q as U and M (see :func:`reflections_product`), then R and its diagonal."""
        dtype = torch.promote_types(self.packed.dtype, like.dtype)
        packed = self.packed.to(dtype)
        diagonal = softplus_positive(packed.diagonal(), MIN_DIAGONAL)
        return *reflections_product(self.vectors.to(dtype)), packed.triu(1) + torch.diag(diagonal), diagonal


@register("transforms")
class WoodburyLinear(Transform):
    """z = (I + U' V^T) x + b with U', V of shape D x K (Lu and Huang 2020, eq. 8): O(D K) in place of O(D^2).

    By the determinant lemma the contribution is log det C, with C = I + V^T U' of shape K x K; by Woodbury's identity
    x = z - U' C^-1 V^T z. A matrix C without constraints may be singular, so the parameters are its factors C = L T, lower
    and unit upper triangular, and a softplus keeps the diagonal of L at least 1e-3. With M = V^T U this is

        U' = U T,   T = (I - strict upper part of M)^-1,   L = I + lower part of M,

    the product of K rank-one updates (I + u_k v_k^T). So log det C = sum log L_kk, C is never formed, and every pair U', V
    whose C has positive leading minors can be represented. L_kk = 1 + v_k.u_k is bounded by adding a multiple of v_k to
    u_k. It starts as the identity.

    Args:
        features: width D of the vectors.
        rank: rank K, from 1 to D.
        bias: whether b is learned; otherwise it is 0.
        seed: seed of the initial V.

    Raises:
        ConfigError: if the event is not a vector, or the rank is not in 1, ..., D.

    Example:
        >>> import torch
        >>> from pushforward.transforms import WoodburyLinear
        >>> linear = WoodburyLinear(5, rank=2)
        >>> linear.encode(torch.ones(1, 5)).z                          # the identity before training
        tensor([[1., 1., 1., 1., 1.]], grad_fn=<AddBackward0>)
    """

    def __init__(self, features: int | Shape, rank: int = 1, bias: bool = True, seed: int = 0) -> None:
        super().__init__(features)
        self.features, self.rank, self.bias, self.seed = features, rank, bias, seed
        width = vector_width(features, "WoodburyLinear")
        check_integer("rank", rank, most=width)
        self.left = nn.Parameter(torch.zeros(rank, width))
        self.right = nn.Parameter(seeded_normal(rank, width, seed=seed) / math.sqrt(width))
        self.offset = nn.Parameter(torch.zeros(width)) if bias else None

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """x + U T V^T x + b."""
        with full_precision(x):
            left, right, products, diagonal = self._factors(x)
            x = x.to(left.dtype)
            identity = torch.eye(len(diagonal), dtype=left.dtype, device=left.device)
            mixed = torch.linalg.solve_triangular(identity - products.triu(1), right, upper=True, unitriangular=True)
            z = x + (x @ mixed.mT) @ left
            z = z if self.offset is None else z + self.offset
            return Step(z, diagonal.log().sum().expand(self.batch_shape(x)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """y - U L^-1 V^T y with y = z - b."""
        with full_precision(z):
            left, right, products, diagonal = self._factors(z)
            y = z.to(left.dtype) if self.offset is None else z.to(left.dtype) - self.offset
            lower = products.tril(-1) + torch.diag(diagonal)
            return y - (y @ torch.linalg.solve_triangular(lower, right, upper=False).mT) @ left

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U and V, each as K rows, M = V^T U, and the diagonal of L."""
        dtype = torch.promote_types(self.left.dtype, like.dtype)
        left, right = self.left.to(dtype), self.right.to(dtype)
        free = (left * right).sum(-1)
        diagonal = softplus_positive(free, MIN_DIAGONAL)
        square = right.square().sum(-1).clamp(min=1e-30)
        left = left + ((diagonal - 1 - free) / square).unsqueeze(-1) * right
        return left, right, right @ left.mT, diagonal


def _reflected(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """x - (x first^T) second for every row x, where first and second are U and M of :func:`reflections_product`."""
    # The products are up to 2 K sqrt(D) times the largest number of a row, so those of numbers near the end of the type would
    # overflow to inf - inf. A power of two changes no digit.
    rows = rows * _SCALE
    return (rows - (rows @ first.mT) @ second) / _SCALE


def reflections_product(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """U and M, both ``(K, D)``, with H_1 ... H_K = I - U^T M (the UT transform, Joffrain et al. 2006).

    The rows of U are the vectors at unit length, and M = T U solves (I / 2 + strict upper part of U U^T) M = U.
    The direction of a vector shorter than about 1e-15 is not defined; its reflection is replaced by the identity.

    Args:
        vectors: ``(K, D)``, of any length.
    """
    # A reflection does not depend on the length of its vector, so the scaling needs no gradient. Without it v^T v of a
    # tiny or huge vector would underflow or overflow in float32.
    largest = vectors.detach().abs().amax(-1, keepdim=True)
    tiny = largest < 1e-15
    scaled = torch.where(tiny, 1.0, vectors / torch.where(tiny, 1.0, largest))
    units = torch.where(tiny, 0.0, scaled / torch.linalg.vector_norm(scaled, dim=-1, keepdim=True))
    half = 0.5 * torch.eye(units.shape[0], dtype=units.dtype, device=units.device)
    mixed = torch.linalg.solve_triangular(half + (units @ units.mT).triu(1), units, upper=True)
    return units, mixed
