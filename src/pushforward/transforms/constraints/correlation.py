"""Correlation matrices to the reals, by canonical partial correlations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.likelihood import Support
from pushforward.numerics import Noise, minus_log_cosh
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform
from pushforward.transforms.validation import vector_width

__all__ = ["PartialCorrelations"]


@register("transforms")
class PartialCorrelations(Transform):
    """The entries below the diagonal of a correlation matrix to the reals (Lewandowski, Kurowicka, Joe 2009).

    The entries are ordered by row: r_21, r_31, r_32, ... With the Cholesky factor L of the matrix,
    z_ij = atanh(L_ij / sqrt(1 - sum_{k<j} L_ik^2)), the Fisher transform of a partial correlation. All real z are possible,
    and z = 0 is the identity matrix. The density refers to the d (d - 1) / 2 entries; :meth:`matrix` makes the matrix.

    Rows that are not the entries of a positive definite matrix have the contribution -inf. A large matrix of strong correlations
    is nearly singular, and rounding alone can then make it indefinite: of standard normal z in float32 2 % of the matrices of 10
    rows, and most of 20 rows. Use ``.double()``, or ``sample_and_log_prob``, which needs no factorization.

    Args:
        features: number of entries d (d - 1) / 2, for a matrix of d rows.

    Raises:
        ConfigError: if no matrix has this number of entries.

    Example:
        >>> import torch
        >>> from pushforward.transforms import PartialCorrelations
        >>> PartialCorrelations(1).encode(torch.tensor([[0.5]])).z          # atanh(0.5)
        tensor([[0.5493]])
        >>> PartialCorrelations(3).matrix(torch.tensor([0.1, 0.2, 0.3]))
        tensor([[1.0000, 0.1000, 0.2000],
                [0.1000, 1.0000, 0.3000],
                [0.2000, 0.3000, 1.0000]])
    """

    domain = Support(-1.0, 1.0, "correlation")

    def __init__(self, features: int) -> None:
        width = vector_width(features, "PartialCorrelations")
        super().__init__(features)
        self.features = features
        self.size = round((1 + math.sqrt(1 + 8 * width)) / 2)
        if self.size * (self.size - 1) // 2 != width:
            raise ConfigError(
                f"features must be d (d - 1) / 2, the number of entries below the diagonal of a d x d matrix (1, 3, 6, "
                f"10, ...); got {features!r}."
            )

    def matrix(self, x: Tensor) -> Tensor:
        """The correlation matrix, ``(*batch, d, d)``."""
        lower = self._lower(x)
        return lower + lower.mT + torch.eye(self.size, dtype=x.dtype, device=x.device)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Fisher transforms of the partial correlations."""
        limits = torch.finfo(x.dtype)
        matrix = self.matrix(x.clamp(-1, 1))
        info = torch.linalg.cholesky_ex(matrix.detach())[1]
        valid = (info == 0) & (x.abs() < 1).all(-1)
        # The factor of an invalid row has no meaning and no gradient.
        identity = torch.eye(self.size, dtype=x.dtype, device=x.device)
        factor = torch.linalg.cholesky_ex(torch.where(valid[..., None, None], matrix, identity))[0]
        squares = factor.square()
        rest = torch.flip(
            torch.cumsum(torch.flip(squares, (-1,)), -1), (-1,)
        )  # 1 - sum_{k<j} L_ik^2 = sum_{k>=j} L_ik^2
        rows, columns = self._indices(x)
        partial = factor[..., rows, columns] / rest[..., rows, columns].clamp(min=limits.tiny * 1024).sqrt()
        z = torch.atanh(partial.clamp(-1 + limits.eps, 1 - limits.eps))
        return Step(z, torch.where(valid, -self._log_det(z), -math.inf))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """The entries of the matrix."""
        partial = torch.tanh(z)
        log_rest = self._log_rest(z)
        lower = self._lower(partial) * torch.exp(log_rest)
        factor = lower + torch.diag_embed(torch.diagonal(torch.exp(log_rest), dim1=-2, dim2=-1))
        rows, columns = self._indices(z)
        return (factor @ factor.mT)[..., rows, columns]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """The entries, and the contribution computed from z."""
        return self.decode(z), -self._log_det(z)

    def _log_det(self, z: Tensor) -> Tensor:
        """log det dx/dz = sum_{i>j} [log L_jj + (log rest_ij) / 2 + log(1 - tanh(z_ij)^2)]."""
        rows, columns = self._indices(z)
        log_rest = self._log_rest(z)
        diagonal = torch.diagonal(log_rest, dim1=-2, dim2=-1)
        return (diagonal[..., columns] + log_rest[..., rows, columns] + _log_slope(z)).sum(-1)

    def _log_rest(self, z: Tensor) -> Tensor:
        """Half the log of what the entries before leave of the length of a row, 1 - sum_{k<j} L_ik^2, ``(*batch, d, d)``."""
        each = self._lower(_log_slope(z) / 2)
        return torch.cumsum(each, -1) - each

    def _lower(self, x: Tensor) -> Tensor:
        """A matrix with the entries below its diagonal and zeros elsewhere."""
        rows, columns = self._indices(x)
        matrix = x.new_zeros(*x.shape[:-1], self.size, self.size)
        matrix[..., rows, columns] = x
        return matrix

    def _indices(self, like: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = torch.tril_indices(self.size, self.size, -1, device=like.device)
        return rows, columns


def _log_slope(z: Tensor) -> Tensor:
    """log(1 - tanh(z)^2)."""
    return 2 * minus_log_cosh(z)
