"""Mixtures of sigmoids as transformers: the logistic-mixture CDF of Flow++ and the deep sigmoidal flow of NAF."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.numerics import log_sum, monotone_root, soft_clamp
from pushforward.numerics.checks import check_integer, check_number, check_positive
from pushforward.registry import register
from pushforward.transforms.transformers.base import Transformer

__all__ = ["MixtureCDFTransformer", "SigmoidalTransformer"]


@register("transformers")
@dataclass(frozen=True)
class MixtureCDFTransformer(Transformer):
    """y = exp(a) g(x) + b, with g the logit of a mixture of logistic CDFs (Flow++, Ho et al. 2019, sec. 3.2.1).

    g(x) = e x + (1 - e) logit(sum_k w_k sigmoid((x - m_k) / s_k)). The paper has e = 0; here e = ``min_slope``, so that
    the inverse exists between modes far apart, where the mixture alone is flat to the last digit. Everything is computed
    from logarithms, so both tails are exact. Far from the data y is a straight line with the slope of the widest
    component. The inverse is a bracketed root, found to rounding.

    Raw parameters: K logits of weights, K centers, K log-scales, then b and a. At 0 all components are equal, y = x, and
    the derivatives with respect to the parameters are those of an affine transformer. Training separates the components
    because each center has its own factor on its raw parameter.

    Args:
        components: number of components K.
        max_log_scale: smooth bound on abs(log s_k), and on abs(a).
        max_center: smooth bound on abs(m_k); data should mostly lie within.
        min_slope: smallest slope e.

    Raises:
        ConfigError: for no components, or bounds out of range.

    Example:
        >>> import torch
        >>> transformer = MixtureCDFTransformer(components=3)
        >>> x = torch.tensor([-1e6, 0.5, 50.0])
        >>> raw = torch.linspace(-2, 2, transformer.parameters)[:, None].expand(-1, 3)
        >>> torch.allclose(transformer.inverse(transformer.forward(x, raw)[0], raw)[0], x)
        True
    """

    components: int = 8
    max_log_scale: float = 3.0
    max_center: float = 8.0
    min_slope: float = 1e-3

    def __post_init__(self) -> None:
        check_integer("components", self.components)
        _check_bounds(self.max_log_scale, self.max_center, self.min_slope)

    @property
    def parameters(self) -> int:
        """3 K + 2."""
        return 3 * self.components + 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """exp(a) g(x) + b."""
        log_scale = soft_clamp(raw[-1], self.max_log_scale)
        y, log_slope = self._mixture(raw).forward(x)
        return y * log_scale.exp() + raw[-2], log_slope + log_scale

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The root of g(x) = (y - b) exp(-a)."""
        log_scale = soft_clamp(raw[-1], self.max_log_scale)
        x, log_slope = self._mixture(raw).inverse((y - raw[-2]) * torch.exp(-log_scale))
        return x, log_slope + log_scale

    def _mixture(self, raw: Tensor) -> _Mixture:
        return _Mixture.of(raw[:-2], self.max_log_scale, self.max_center, self.min_slope)


@register("transformers")
@dataclass(frozen=True)
class SigmoidalTransformer(Transformer):
    """Deep sigmoidal flow: L layers y = logit(sum_k w_k sigmoid(a_k (x - m_k))) in sequence (NAF, Huang et al. 2018,
    eq. 8, with b_k = -a_k m_k).

    Each layer has U units and a slope of at least ``min_slope``: it is e x + (1 - e) logit(...), with e = 0 in the paper.
    One number passes from layer to layer (the paper's "DSF", not its dense "DDSF"). Everything is computed from
    logarithms, so both tails are exact; far from the data y is a straight line. The inverse is a bracketed root for each
    layer, found to rounding. It is universal as U grows (Huang et al. 2018, prop. 2).

    Raw parameters: for each layer U logits of weights, U centers and U log-scales. At 0 it is the identity, where all
    units are equal; see :class:`MixtureCDFTransformer`.

    Args:
        layers: number of layers L.
        units: number of units U of each layer.
        max_log_scale: smooth bound on abs(log a_k).
        max_center: smooth bound on abs(m_k).
        min_slope: smallest slope e.

    Raises:
        ConfigError: for no layers or units, or bounds out of range.

    Example:
        >>> import torch
        >>> transformer = SigmoidalTransformer(layers=2, units=3)
        >>> x = torch.tensor([-1e6, 0.5, 50.0])
        >>> raw = torch.linspace(-2, 2, transformer.parameters)[:, None].expand(-1, 3)
        >>> torch.allclose(transformer.inverse(transformer.forward(x, raw)[0], raw)[0], x)
        True
    """

    layers: int = 1
    units: int = 16
    max_log_scale: float = 3.0
    max_center: float = 8.0
    min_slope: float = 1e-3

    def __post_init__(self) -> None:
        check_integer("layers", self.layers)
        check_integer("units", self.units)
        _check_bounds(self.max_log_scale, self.max_center, self.min_slope)

    @property
    def parameters(self) -> int:
        """3 L U."""
        return 3 * self.layers * self.units

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """All layers in order."""
        log_slope = torch.zeros_like(x)
        for mixture in self._mixtures(raw):
            x, layer_log_slope = mixture.forward(x)
            log_slope = log_slope + layer_log_slope
        return x, log_slope

    def inverse(self, y: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """The inverses of the layers, last first."""
        log_slope = torch.zeros_like(y)
        for mixture in reversed(list(self._mixtures(raw))):
            y, layer_log_slope = mixture.inverse(y)
            log_slope = log_slope + layer_log_slope
        return y, log_slope

    def _mixtures(self, raw: Tensor) -> Iterable[_Mixture]:
        for part in raw.chunk(self.layers):
            yield _Mixture.of(part, self.max_log_scale, self.max_center, self.min_slope)


@dataclass(frozen=True)
class _Mixture:
    """x -> e x + (1 - e) logit(sum_k w_k sigmoid(a_k (x - m_k))), with log a_k in ``log_scales``; tensors are ``(K, *x.shape)``."""

    log_weights: Tensor
    log_scales: Tensor
    centers: Tensor
    min_slope: float

    @staticmethod
    def of(raw: Tensor, max_log_scale: float, max_center: float, min_slope: float) -> _Mixture:
        weights, centers, scales = raw.chunk(3)
        # At raw = 0 all components are equal, and equal gradients would keep them equal.
        factor = torch.linspace(0.5, 1.5, len(centers), dtype=raw.dtype, device=raw.device)
        centers = soft_clamp(centers * factor.reshape(-1, *(1,) * (raw.dim() - 1)), max_center)
        return _Mixture(torch.log_softmax(weights, 0), -soft_clamp(scales, max_log_scale), centers, min_slope)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value, and the logarithm of the slope."""
        inner = self.log_scales.exp() * (x - self.centers)
        log_on, log_off = F.logsigmoid(inner), F.logsigmoid(-inner)
        below, above = self.log_weights + log_on, self.log_weights + log_off
        log_below, log_above = torch.logsumexp(below, 0), torch.logsumexp(above, 0)
        # With p the mass below x and q = 1 - p the mass above, d logit(p) = dp / (p q) = dp (1/p + 1/q): positive terms, no cancellation.
        terms = torch.cat((below - log_below + log_off, above - log_above + log_on))
        log_slope = torch.logsumexp(terms + self.log_scales.repeat(2, *(1,) * x.dim()), 0) + math.log1p(-self.min_slope)
        value = self.min_slope * x + (1 - self.min_slope) * (log_below - log_above)
        return value, log_sum(log_slope, torch.full_like(x, math.log(self.min_slope)))

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The root, and the logarithm of the slope there."""
        # A mean of sigmoids lies between the smallest and the largest, so the root lies between the roots of the single components.
        scale = (1 - self.min_slope) * self.log_scales.exp()
        roots = ((y + scale * self.centers) / (self.min_slope + scale)).detach()

        def function(x: Tensor) -> tuple[Tensor, Tensor]:
            value, log_slope = self.forward(x)
            return value, log_slope.exp()

        x = monotone_root(function, y, roots.amin(0), roots.amax(0), doublings=0)
        return x, self.forward(x)[1]


def _check_bounds(max_log_scale: float, max_center: float, min_slope: float) -> None:
    check_number("max_log_scale", max_log_scale, 0, 10, closed="right")
    check_positive("max_center", max_center)
    check_number("min_slope", min_slope, 0, 1)
