"""Learned linear transform that differs from the identity by a matrix of low rank."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.numerics import Noise, softplus_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.linear.linear import MIN_DIAGONAL, whole_precision
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["WoodburyLinear"]


@register("transforms")
class WoodburyLinear(Transform):
    """z = (I + U' V^T) x + b with U', V of shape D x K (Lu and Huang 2020, eq. 8): O(D K) in place of O(D^2).

    By the determinant lemma the contribution is log det C, with C = I + V^T U' of shape K x K; by Woodbury's identity
    x = z - U' C^-1 V^T z. Whether a free C is invertible is anybody's guess, so C is held by its factors L T, lower
    and unit upper triangular, and the diagonal of L is at least 1e-3, by a softplus. With M = V^T U this is

        U' = U T,   T = (I - strict upper part of M)^-1,   L = I + lower part of M,

    which are K rank-one steps (I + u_k v_k^T) multiplied out. So log det C = sum log L_kk, C never has to be formed,
    and every U', V whose C has positive leading minors is within reach. L_kk = 1 + v_k.u_k is bounded by moving u_k
    along v_k. The start is the identity.

    Args:
        features: width D of the vectors.
        rank: K, from 1 to D.
        bias: whether b is learned; else it is 0.
        seed: of the starting V.

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
        if not 1 <= rank <= width:
            raise ConfigError(f"rank must lie in 1, ..., {width}; got {rank}.")
        self.left = nn.Parameter(torch.zeros(rank, width))
        self.right = nn.Parameter(seeded_normal(rank, width, seed=seed) / math.sqrt(width))
        self.offset = nn.Parameter(torch.zeros(width)) if bias else None

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """X + U T V^T x + b."""
        with whole_precision(x):
            left, right, products, diagonal = self._factors(x)
            x = x.to(left.dtype)
            one = torch.eye(len(diagonal), dtype=left.dtype, device=left.device)
            mixed = torch.linalg.solve_triangular(one - products.triu(1), right, upper=True, unitriangular=True)
            z = x + (x @ mixed.mT) @ left
            z = z if self.offset is None else z + self.offset
            return Step(z, diagonal.log().sum().expand(self.batch_shape(x)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Y - U L^-1 V^T y with y = z - b."""
        with whole_precision(z):
            left, right, products, diagonal = self._factors(z)
            y = z.to(left.dtype) if self.offset is None else z.to(left.dtype) - self.offset
            lower = products.tril(-1) + torch.diag(diagonal)
            return y - (y @ torch.linalg.solve_triangular(lower, right, upper=False).mT) @ left

    def _factors(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """U and V, both as K rows, M = V^T U, and the diagonal of L."""
        dtype = torch.promote_types(self.left.dtype, like.dtype)
        left, right = self.left.to(dtype), self.right.to(dtype)
        free = (left * right).sum(-1)
        diagonal = softplus_positive(free, MIN_DIAGONAL)
        square = right.square().sum(-1).clamp(min=1e-30)
        left = left + ((diagonal - 1 - free) / square).unsqueeze(-1) * right
        return left, right, right @ left.mT, diagonal
