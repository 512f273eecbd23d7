"""The integral of a positive network as a transformer (UMNN)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.numerics import constant, soft_clamp
from pushforward.numerics.checks import check_integer, check_number
from pushforward.registry import register
from pushforward.transforms.transformers.linear_tails import Interior, LinearTailTransformer

__all__ = ["UnconstrainedMonotoneTransformer", "clenshaw_curtis"]

_MAX_STEEPNESS = 2.0
"""Largest slope of a unit. It keeps the error of the quadrature small for any weights."""


@register("transformers")
@dataclass(frozen=True)
class UnconstrainedMonotoneTransformer(LinearTailTransformer):
    """y = c + integral from 0 to x of g(t) dt with g > 0 a small network (UMNN, Wehenkel & Louppe 2019, eq. 1-2).

    g(t) = exp(b + sum_k v_k tanh(w_k (t - m_k))) on [-bound, bound] and constant outside, so that y is a straight line
    there. Transformers store no weights, so the conditioner computes all weights of g (in the paper it computes an
    embedding that a shared network reads). The integral is a Clenshaw-Curtis sum with N + 1 ``nodes``, as in the paper.

    Accuracy: the log-derivative is log g(x), exact to rounding. The value is a quadrature: with 64 nodes and the default
    ``max_log_slope`` it is within a relative 1e-13 of the integral, and its own slope within 1e-9 of g, whatever the raw
    values; with 32 nodes, 1e-8 and 1e-4. A density that uses it has mass 1 up to the error of the slope. The inverse is
    the inverse of the quadrature, to rounding.

    Raw parameters: H each of v, m and log w, then b and c. At 0 it is the identity, with units spread over the interval.

    Args:
        units: number H of hidden units.
        nodes: number N of nodes minus one, even.
        bound: data should mostly lie within [-bound, bound].
        max_log_slope: smooth bound on abs(b), and on the sum over k.

    Raises:
        ConfigError: for no units, nodes that are odd or not in 8, ..., 1024, or bounds out of range.

    Example:
        >>> import torch
        >>> transformer = UnconstrainedMonotoneTransformer(units=3)
        >>> x = torch.tensor([-50.0, 0.5, 2.0])
        >>> raw = torch.linspace(-1, 1, transformer.parameters)[:, None].expand(-1, 3)
        >>> torch.allclose(transformer.inverse(transformer.forward(x, raw)[0], raw)[0], x, atol=1e-5)
        True
    """

    units: int = 8
    nodes: int = 64
    bound: float = 4.0
    max_log_slope: float = 3.0
    _rule: tuple[tuple[float, ...], tuple[float, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_integer("units", self.units)
        if check_integer("nodes", self.nodes, 8, most=1024) % 2:
            raise ConfigError(f"nodes must be even; got {self.nodes!r}.")
        super().__post_init__()
        check_number("max_log_slope", self.max_log_slope, 0, 10, closed="right")
        object.__setattr__(self, "_rule", clenshaw_curtis(self.nodes))

    @property
    def parameters(self) -> int:
        """3 H + 2."""
        return 3 * self.units + 2

    def interior(self, raw: Tensor) -> Interior:
        """The integral from 0 to x, and log g(x)."""
        weights, centers, steepness = raw[:-2].chunk(3)
        grid = torch.linspace(-1, 1, self.units + 2, dtype=raw.dtype, device=raw.device)[1:-1] * self.bound
        centers = grid.reshape(-1, *(1,) * (raw.dim() - 1)) + soft_clamp(centers, self.bound)
        weights = soft_clamp(weights, 1e6)  # the sum below stays finite
        weights = self.max_log_slope * weights / (self.max_log_slope + weights.abs().sum(0))
        nodes, node_weights = constant(self._rule, raw.dtype, raw.device)
        steepness = soft_clamp(steepness, math.log(_MAX_STEEPNESS)).exp() * (4.0 / self.bound)
        offset = soft_clamp(raw[-2], self.max_log_slope)
        return _Integrand(weights, centers, steepness, offset, nodes, node_weights).integral


@dataclass(frozen=True)
class _Integrand:
    """g: ``weights``, ``centers`` and ``steepness`` are ``(H, *x.shape)``, ``offset`` is ``x.shape``."""

    weights: Tensor
    centers: Tensor
    steepness: Tensor
    offset: Tensor
    nodes: Tensor
    node_weights: Tensor

    def log(self, t: Tensor) -> Tensor:
        """log g at t of shape ``(N, *x.shape)``."""
        inner = self.steepness.unsqueeze(1) * (t - self.centers.unsqueeze(1))
        return self.offset + (self.weights.unsqueeze(1) * torch.tanh(inner)).sum(0)

    def integral(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The integral from 0 to x, and log g(x)."""
        fraction = (0.5 * (1 + self.nodes)).reshape(-1, *(1,) * x.dim())
        log_values = self.log(x * fraction)
        node_weights = self.node_weights.reshape(fraction.shape)
        return 0.5 * x * (node_weights * log_values.exp()).sum(0), log_values[0]  # the first node is x itself


def clenshaw_curtis(count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The ``count + 1`` nodes on [-1, 1], in decreasing order, and the weights of the rule that integrates the
    interpolating polynomial (Clenshaw & Curtis 1960); ``count`` is even.

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
