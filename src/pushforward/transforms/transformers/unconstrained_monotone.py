"""The integral of a positive network as a law (UMNN)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics import constant, soft_clamp
from pushforward.registry import register
from pushforward.transforms.transformers.base import Transformer
from pushforward.transforms.transformers.linear_tails import extend, extend_inverse

__all__ = ["UnconstrainedMonotoneTransformer", "clenshaw_curtis"]


_STEEPEST = 2.0
"""Largest slope of a unit: what makes the quadrature's error small whatever the weights."""


@register("transformers")
@dataclass(frozen=True)
class UnconstrainedMonotoneTransformer(Transformer):
    """y = c + integral from 0 to x of g(t) dt with g > 0 a small network (UMNN, Wehenkel & Louppe 2019, eq. 1-2).

    g(t) = exp(b + sum_k v_k tanh(w_k (t - m_k))) on [-bound, bound] and constant outside, so that the law is a line far
    away. A law holds no weights, so all those of g come from the conditioner (in the paper the conditioner gives an
    embedding that a shared network reads). The integral is a Clenshaw-Curtis sum with N + 1 ``nodes``, as in the paper.

    What is exact: the log-derivative is log g(x), to rounding. The value is a quadrature: with 64 nodes and the default
    ``max_log_slope`` it is within a relative 1e-13 of the integral, and its own slope within 1e-9 of g, whatever the raw
    values; with 32 nodes, 1e-8 and 1e-4. A density made with it has mass 1 up to the error of the slope. The inverse is
    that of the quadrature, to rounding.

    Raw parameters: H each of v, m and log w, then b and c; at 0 the law is the identity, with units spread over the
    interval.

    Args:
        units: H.
        nodes: N, even.
        bound: data should mostly lie within [-bound, bound].
        max_log_slope: smooth bound on abs(b), and on the sum over k.

    Raises:
        ConfigError: for no units, nodes that are odd or not in 8, ..., 1024, or bounds out of range.

    Example:
        >>> import torch
        >>> law = UnconstrainedMonotoneTransformer(units=3)
        >>> x, raw = torch.tensor([-50.0, 0.5, 2.0]), torch.linspace(-1, 1, law.parameters)[:, None].expand(-1, 3)
        >>> torch.allclose(law.inverse(law.forward(x, raw)[0], raw)[0], x, atol=1e-5)
        True
    """

    units: int = 8
    nodes: int = 64
    bound: float = 4.0
    max_log_slope: float = 3.0
    _rule: tuple[tuple[float, ...], tuple[float, ...]] = field(init=False, repr=False, compare=False)
    start = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.units, int) or isinstance(self.units, bool) or self.units < 1:
            raise ConfigError(f"units must be an integer of at least 1; got {self.units!r}.")
        if not isinstance(self.nodes, int) or not 8 <= self.nodes <= 1024 or self.nodes % 2:
            raise ConfigError(f"nodes must be an even integer in 8, ..., 1024; got {self.nodes!r}.")
        if not 0 < self.bound < math.inf:
            raise ConfigError(f"bound must be positive and finite; got {self.bound}.")
        if not 0 < self.max_log_slope <= 10:
            raise ConfigError(f"max_log_slope must lie in (0, 10]; got {self.max_log_slope}.")
        object.__setattr__(self, "_rule", clenshaw_curtis(self.nodes))

    @property
    def parameters(self) -> int:
        """3 H + 2."""
        return 3 * self.units + 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """c + the integral, and log g(x)."""
        y, log_slope = extend(self._integrand(raw).integral, x, self.bound)
        return y + raw[-1], log_slope

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The root in x, and log g(x)."""
        return extend_inverse(self._integrand(raw).integral, y - raw[-1], self.bound)

    def _integrand(self, raw: Tensor) -> _Integrand:
        weights, centers, steepness = raw[:-2].chunk(3)
        places = torch.linspace(-1, 1, self.units + 2, dtype=raw.dtype, device=raw.device)[1:-1] * self.bound
        centers = places.reshape(-1, *(1,) * (raw.dim() - 1)) + soft_clamp(centers, self.bound)
        weights = soft_clamp(weights, 1e6)  # the sum below stays finite
        weights = self.max_log_slope * weights / (self.max_log_slope + weights.abs().sum(0))
        nodes, sizes = constant(self._rule, raw.dtype, raw.device)
        steepness = soft_clamp(steepness, math.log(_STEEPEST)).exp() * (4.0 / self.bound)
        return _Integrand(weights, centers, steepness, soft_clamp(raw[-2], self.max_log_slope), nodes, sizes)


@dataclass(frozen=True)
class _Integrand:
    weights: Tensor
    centers: Tensor
    steepness: Tensor
    """Each ``(H, *x.shape)``."""
    offset: Tensor
    nodes: Tensor
    sizes: Tensor

    def log(self, t: Tensor) -> Tensor:
        """log g at t of shape ``(N, *x.shape)``."""
        inner = self.steepness.unsqueeze(1) * (t - self.centers.unsqueeze(1))
        return self.offset + (self.weights.unsqueeze(1) * torch.tanh(inner)).sum(0)

    def integral(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The integral from 0 to x, and log g(x)."""
        share = (0.5 * (1 + self.nodes)).reshape(-1, *(1,) * x.dim())
        log_values = self.log(x * share)
        sizes = self.sizes.reshape(share.shape)
        return 0.5 * x * (sizes * log_values.exp()).sum(0), log_values[0]  # the first node is x itself


def clenshaw_curtis(count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The ``count + 1`` nodes on [-1, 1], from 1 down, and the weights, of the rule that integrates the interpolating
    polynomial (Clenshaw & Curtis 1960); ``count`` is even.

    Example:
        >>> clenshaw_curtis(2)[1]                                # Simpson's rule
        (0.333..., 1.333..., 0.333...)
    """
    angles = np.pi * np.arange(count + 1) / count
    orders = np.arange(1, count // 2 + 1)
    factors = np.where(orders == count // 2, 1.0, 2.0) / (4.0 * orders**2 - 1)
    weights = 2.0 / count * (1 - np.cos(2 * np.outer(angles, orders)) @ factors)
    weights[[0, -1]] /= 2
    return tuple(np.cos(angles).tolist()), tuple(weights.tolist())
