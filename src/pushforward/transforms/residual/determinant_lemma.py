"""Residual flows whose determinant comes from the matrix determinant lemma: planar, radial and Sylvester."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.numerics import Noise, full_precision, monotone_root, softplus_positive
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.linear.factored import reflections_product
from pushforward.transforms.validation import seeded_normal, vector_width

__all__ = ["Planar", "Radial", "Sylvester"]


MIN_SLOPE = 1e-3


@register("transforms")
class Planar(Transform):
    """z = x + u' tanh(w.x + b) (Rezende and Mohamed 2015, eq. 10); contribution log(1 + (1 - tanh^2) w.u').

    Invertible because w.u' > -1: u' = u + (m(w.u) - w.u) w / (w.w), with the *squared* norm below and
    m(a) = -1 + softplus(a + c) + 1e-3, where c makes m(0) = 0 (app. A.1 has c = 0, where u = 0 is not the identity).
    The slope along w is at least 1e-3. Decoding solves one scalar monotone equation for w.x, with its exact gradient.

    Args:
        features: width D of the vectors.
        seed: of the starting weights, near the identity.

    Raises:
        ConfigError: if the event is not a vector.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Planar
        >>> planar = Planar(2)
        >>> x = torch.tensor([[1.0, -2.0]])
        >>> torch.allclose(planar.decode(planar.encode(x).z), x)
        True
    """

    def __init__(self, features: int | Shape, seed: int = 0) -> None:
        super().__init__(features)
        self.features, self.seed = features, seed
        width = vector_width(features, "Planar")
        start = seeded_normal(2, width, seed=seed)
        self.weight = nn.Parameter(start[0] / math.sqrt(width))
        self.direction = nn.Parameter(0.3 * start[1] / math.sqrt(width))
        self.bias = nn.Parameter(torch.zeros(()))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """X + u' tanh(w.x + b)."""
        push, slope_at_center = self._constrained(x)
        ridge = torch.tanh((x * self.weight).sum(-1) + self.bias)
        return Step(x + ridge.unsqueeze(-1) * push, ridge_slope(ridge, slope_at_center).log())

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Z - u' tanh(a + b), where a = w.x solves a + w.u' tanh(a + b) = w.z."""
        push, slope_at_center = self._constrained(z)
        height = slope_at_center - 1

        def along(a: Tensor) -> tuple[Tensor, Tensor]:
            ridge = torch.tanh(a + self.bias)
            return a + height * ridge, ridge_slope(ridge, slope_at_center)

        target = (z * self.weight).sum(-1)
        reach = height.detach().abs()
        a = monotone_root(along, target, target.detach() - reach, target.detach() + reach, doublings=0)
        return z - torch.tanh(a + self.bias).unsqueeze(-1) * push

    def _constrained(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """u', and 1 + w.u' > 0, as precise as the coordinates."""
        dtype = torch.promote_types(self.weight.dtype, like.dtype)
        weight, direction = self.weight.to(dtype), self.direction.to(dtype)
        product = (weight * direction).sum()
        slope_at_center = softplus_positive(product, MIN_SLOPE)
        square = weight.square().sum().clamp(min=1e-30)
        return direction + (slope_at_center - 1 - product) * weight / square, slope_at_center


def ridge_slope(ridge: Tensor, slope_at_center: Tensor) -> Tensor:
    """1 + (1 - tanh^2)(s - 1) as a sum of positive terms, which cannot cancel to 0."""
    square = ridge.square()
    return square + (1 - square) * slope_at_center


@register("transforms")
class Radial(Transform):
    """z = x + beta h (x - x0) with r = norm(x - x0) and h = 1 / (alpha + r) (Rezende and Mohamed 2015, eq. 14).

    Contribution: (D - 1) log(1 + beta h) + log(1 + alpha beta h^2). Invertible because alpha > 0 and
    beta = alpha (s - 1) > -alpha, with the slope at the center s >= 1e-3. Decoding is in closed form: r is the positive
    root of r^2 + (alpha + beta - rho) r - alpha rho = 0 with rho = norm(z - x0).

    Args:
        features: width D of the vectors.
        seed: of the starting weights, near the identity.

    Raises:
        ConfigError: if the event is not a vector.

    Example:
        >>> import torch
        >>> from pushforward.transforms import Radial
        >>> radial = Radial(2)
        >>> x = torch.tensor([[1.0, -2.0]])
        >>> torch.allclose(radial.decode(radial.encode(x).z), x)
        True
    """

    def __init__(self, features: int | Shape, seed: int = 0) -> None:
        super().__init__(features)
        self.features, self.seed = features, seed
        self.width = vector_width(features, "Radial")
        start = seeded_normal(self.width + 1, seed=seed)
        self.center = nn.Parameter(start[1:] / math.sqrt(self.width))
        self.raw_alpha = nn.Parameter(torch.zeros(()))
        self.raw_slope = nn.Parameter(0.3 * start[0])

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """X + beta h (x - x0)."""
        alpha, slope = self._constrained()
        offset = x - self.center
        r = _length(offset)
        stretch = (alpha * slope + r) / (alpha + r)
        near = (alpha / (alpha + r)).square()
        contribution = (self.width - 1) * stretch.log() + ((1 - near) + near * slope).log()
        return Step(self.center + offset * stretch.unsqueeze(-1), contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """x0 + (z - x0) / (1 + beta h), with h at the root r."""
        alpha, slope = self._constrained()
        offset = z - self.center
        rho = _length(offset)
        # In units of the largest length in play, so that squares stay in range; the root scales with the unit.
        unit = torch.maximum(rho, torch.maximum(alpha, alpha * slope)).detach()
        half = 0.5 * (alpha * slope - rho) / unit
        size = torch.where(half >= 0, half, -half)
        product = (alpha / unit) * (rho / unit)
        larger = size + torch.sqrt(half.square() + product)
        # The roots multiply to -product: take the form that adds numbers of one sign.
        r = unit * torch.where(half >= 0, product / larger, larger)
        return self.center + offset * ((alpha + r) / (alpha * slope + r)).unsqueeze(-1)

    def _constrained(self) -> tuple[Tensor, Tensor]:
        """Alpha, and the slope at the center 1 + beta / alpha."""
        return softplus_positive(self.raw_alpha, MIN_SLOPE), softplus_positive(self.raw_slope, MIN_SLOPE)


def _length(offset: Tensor) -> Tensor:
    """Euclidean norm whose squares do not overflow, with gradient 0 at the origin."""
    unit = offset.detach().abs().amax(-1, keepdim=True).clamp(min=1.0)
    return torch.linalg.vector_norm(offset / unit, dim=-1) * unit.squeeze(-1)


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
        check_integer("rank", rank, most=width)
        start = seeded_normal(2 * rank + 3, rank, seed=seed)
        self.vectors = nn.Parameter(seeded_normal(rank, width, seed=seed + 1))
        self.outer = nn.Parameter(0.3 * start[:rank] / math.sqrt(rank))
        self.inner = nn.Parameter(0.3 * start[rank : 2 * rank] / math.sqrt(rank))
        self.raw_slope = nn.Parameter(0.3 * start[-3])
        self.raw_inner = nn.Parameter(0.3 * start[-2])
        self.bias = nn.Parameter(0.3 * start[-1])

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """X + Q R tanh(R' Q^T x + b)."""
        with full_precision(x):
            frame, outer, inner, slope = self._factors(x)
            x = x.to(frame.dtype)
            ridge = torch.tanh(x @ frame @ inner.mT + self.bias)
            z = x + ridge @ outer.mT @ frame.mT
            return Step(z, ridge_slope(ridge, slope).log().sum(-1))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Back-substitution over the M coordinates of Q^T x, then z - Q R tanh."""
        with full_precision(z):
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
