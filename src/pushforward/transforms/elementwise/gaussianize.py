"""Gaussianization of each marginal: the distribution function of a mixture, then the normal quantile."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.errors import InputError
from pushforward.numerics import Noise, monotone_root, soft_clamp, sum_event
from pushforward.numerics.checks import check_integer
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform
from pushforward.transforms.elementwise.normalization import moments
from pushforward.transforms.validation import vector_width

__all__ = ["Gaussianize", "log_mills", "upper_quantile"]

BACKGROUND = 0.02
"""Weight of a fixed wide component, which keeps the slope positive between the trained components."""
MAX_LOG_SCALE = 6.0
"""Smooth bound on abs(log s_k), in units of the standard deviation of the data."""


@register("transforms")
class Gaussianize(Transform):
    """z_i = Phi^-1(F_i(x_i)) with F_i a trainable mixture of logistics (Meng et al. 2020, eq. 5; Chen and Gopinath 2000).

    F_i(x) = sum_k w_k sigmoid((x - m_k) / s_k), and Phi the normal distribution function. If F_i is the true marginal
    distribution, z_i is standard normal. log abs det dz/dx = sum log F_i'(x_i) - log phi(z_i).

    Both tails are exact: the quantile is solved from the logarithm of the smaller of F and 1 - F, and log dz/dx is the
    difference of two log hazards, which causes no cancellation. z grows as sqrt(2 abs(x) / s) with s the largest scale, so
    its image is all reals, and x = 1e20 survives a round trip. One component of weight 0.02, as wide as the data, is fixed:
    without it F would be flat in a gap between the others, and the inverse would be inaccurate there.

    Args:
        features: number of coordinates D.
        components: number K of trained components. :meth:`initialize` puts their centers at K quantiles of the training rows,
            with standard deviations equal to the distances between them: a kernel density estimate, so that z is nearly
            normal before training.

    Raises:
        ConfigError: if the event is not a vector, or K is not a positive integer.

    Example:
        >>> import torch
        >>> transform = Gaussianize(1, components=20)
        >>> x = torch.rand(500, 1, generator=torch.Generator().manual_seed(0))         # uniform, far from normal
        >>> z = transform.initialize(x)
        >>> bool((z.mean().abs() < 0.1) & ((z.std() - 1).abs() < 0.1))           # z is nearly normal
        True
    """

    autoregressive_order = "any"
    center: Tensor
    width: Tensor
    initialized: Tensor

    def __init__(self, features: int, components: int = 8) -> None:
        super().__init__(features)
        features = vector_width(features, "Gaussianize")
        self.features, self.components = features, check_integer("components", components)
        # In units of the background component's center and width; spread evenly, so that no two components start equal.
        start = torch.linspace(-1.5, 1.5, components) if components > 1 else torch.zeros(1)
        self.loc = nn.Parameter(start.unsqueeze(-1).repeat(1, features))
        self.log_scale = nn.Parameter(torch.full((components, features), math.log(0.5)))
        self.logits = nn.Parameter(torch.zeros(components, features))
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("width", torch.ones(features))
        self.register_buffer("initialized", torch.tensor(False))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise."""
        z, slopes = self.encode_terms(x)
        return Step(z, sum_event(slopes, 1))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """Data to noise, with log dz_i/dx_i, both ``(*batch, D)``."""
        return self._gaussianize(x, *self._mixture())

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data: the quantile of the mixture, which lies between the smallest and the largest quantile of its components."""
        loc, scale, log_weight = self._mixture()
        with torch.no_grad():
            bounded = z.clamp(*_finite_range(z))
            logit = torch.special.log_ndtr(bounded) - torch.special.log_ndtr(-bounded)
            quantiles = loc + scale * logit.unsqueeze(-2)
            low, high = quantiles.amin(-2), quantiles.amax(-2)

            def odds(x: Tensor) -> tuple[Tensor, Tensor]:
                """log F / (1 - F), which is nearly linear in the tails, and its derivative."""
                log_below, log_above, log_hazard = _tails(x, loc, scale, log_weight)
                # The hazard belongs to the smaller tail: F' = hazard min(F, 1 - F), and d logit = F' / (F (1 - F)).
                return log_below - log_above, torch.exp(log_hazard - torch.maximum(log_below, log_above))

            x = monotone_root(odds, logit, low, high, doublings=0)

        def function(x: Tensor) -> tuple[Tensor, Tensor]:
            value, log_slope = self._gaussianize(x, loc, scale, log_weight)
            return value, log_slope.exp()

        return monotone_root(function, z, x, x, steps=0, doublings=0)  # one Newton step, which has the gradients

    @torch.no_grad()
    def initialize(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Set the mixture to a kernel density estimate of each marginal, unless it is set; return z.

        Raises:
            InputError: if there is no row.
        """
        if not self.initialized:
            rows = x.detach().reshape(-1, self.features).double()
            if not len(rows):
                raise InputError("Gaussianize.initialize needs at least one row.")
            mean, std = moments(x, self.in_shape, self.in_shape)
            std = torch.where(std > 0, std, 1.0)
            ordered, count = rows.sort(0).values, self.components
            rank = (torch.arange(count, device=x.device) + 0.5) / count * (len(rows) - 1)
            loc = ordered[rank.round().long()]
            edges = torch.cat((ordered[:1], loc, ordered[-1:]))
            # Standard deviations equal to the distance between neighbors. Half of it would fit one marginal better, but the
            # bumps that it leaves add up over layers. The standard logistic distribution has deviation pi / sqrt(3).
            gap = 0.5 * (edges[2:] - edges[:-2]) * (math.sqrt(3) / math.pi)
            self.center.copy_(mean)
            self.width.copy_(std)
            self.loc.copy_((loc - mean) / std)
            raw = (gap / std).clamp(1e-2, 10.0).log() / MAX_LOG_SCALE
            self.log_scale.copy_(MAX_LOG_SCALE * torch.atanh(raw))
            self.logits.zero_()
            self.initialized.fill_(True)
        return self.encode(x).z

    def _mixture(self) -> tuple[Tensor, Tensor, Tensor]:
        """Centers, scales and log-weights ``(K + 1, D)``, in the data's units; the background component is last."""
        scale = soft_clamp(self.log_scale, MAX_LOG_SCALE).exp()
        loc = torch.cat((self.loc, torch.zeros_like(self.loc[:1])))
        scale = torch.cat((scale, torch.ones_like(scale[:1])))
        weight = torch.log_softmax(self.logits, 0) + math.log1p(-BACKGROUND)
        weight = torch.cat((weight, torch.full_like(weight[:1], math.log(BACKGROUND))))
        return self.center + self.width * loc, self.width * scale, weight

    @staticmethod
    def _gaussianize(x: Tensor, loc: Tensor, scale: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor]:
        """z and log dz/dx."""
        log_below, log_above, log_hazard = _tails(x, loc, scale, log_weight)
        distance = upper_quantile(torch.minimum(log_below, log_above))
        z = torch.where(log_below < log_above, -distance, distance)
        return z, log_hazard + log_mills(distance)


def _tails(x: Tensor, loc: Tensor, scale: Tensor, log_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log F, log(1 - F), and log F' / min(F, 1 - F), of x ``(*batch, D)`` and a mixture ``(K, D)``."""
    limit = torch.finfo(x.dtype).max / 16  # beyond this the square of z would overflow
    u = ((x.unsqueeze(-2) - loc) / scale).clamp(-limit, limit)
    log_sigmoid, log_rest = F.logsigmoid(u), F.logsigmoid(-u)
    log_below = torch.logsumexp(log_weight + log_sigmoid, -2)
    log_above = torch.logsumexp(log_weight + log_rest, -2)
    left = (log_below < log_above).unsqueeze(-2)
    # The hazard of a logistic is sigmoid / scale. The hazard of the mixture is their mean, weighted by each component's part
    # of the tail.
    log_part = torch.log_softmax(log_weight + torch.where(left, log_sigmoid, log_rest), -2)
    log_hazard = torch.logsumexp(log_part + torch.where(left, log_rest, log_sigmoid) - scale.log(), -2)
    return log_below, log_above, log_hazard


def log_mills(r: Tensor) -> Tensor:
    """log of (1 - Phi(r)) / phi(r), which is minus the log hazard of the normal, for r >= 0 or slightly below."""
    far = r > 50
    near = torch.where(far, 0.0, r)
    inner = torch.log(torch.special.erfcx(near / math.sqrt(2))) + 0.5 * math.log(math.pi / 2)
    r = torch.where(far, r, 50.0)
    s = (1 / r).square()
    # The asymptotic series: its derivative is accurate, unlike that of erfcx.
    outer = -r.log() + torch.log1p(-s * (1 - 3 * s * (1 - 5 * s * (1 - 7 * s * (1 - 9 * s)))))
    return torch.where(far, outer, inner)


def upper_quantile(log_tail: Tensor) -> Tensor:
    """The r with log(1 - Phi(r)) = log_tail, for log_tail <= log(1/2), with its first three derivatives."""
    with torch.no_grad():
        far = log_tail < -4
        inner = -torch.special.ndtri(torch.where(far, math.log(0.5), log_tail).exp())
        twice = -2 * torch.where(far, log_tail, -4.0)
        outer = (twice - math.log(2 * math.pi) - twice.log()).clamp_min(1.0).sqrt()
        r = torch.where(far, outer, inner)
        for _ in range(3):  # relative errors 3e-2, 4e-4, 7e-8, 2e-15
            r = r + _newton(r, log_tail)[0]
    # A Newton step has the first derivative alone. With m the Mills ratio, r' = -m and m' = r m - 1 = m q give the next
    # terms of r as a series in the step, which is 0 but for rounding.
    step, mills = _newton(r, log_tail)
    q, bend = _shortfall(r, mills)
    return r + step * (1 + step * (q / 2 + step * bend / 6))


def _newton(r: Tensor, log_tail: Tensor) -> tuple[Tensor, Tensor]:
    """Newton step for -log(1 - Phi(r)) = -log_tail, whose derivative is the hazard exp(-log_mills); and the Mills ratio."""
    log_phi = -0.5 * r * r - 0.5 * math.log(2 * math.pi)
    log_ratio = log_mills(r)
    mills = log_ratio.exp()
    return (log_phi + log_ratio - log_tail) * mills, mills


def _shortfall(r: Tensor, mills: Tensor) -> tuple[Tensor, Tensor]:
    """q = r minus the hazard of the normal, and 2 q^2 + 1 + q / m, without cancellation for large r."""
    far = r > 30
    inverse = 1 / torch.where(far, r, 30.0)
    s = inverse * inverse
    q = torch.where(far, -inverse * (1 - 2 * s * (1 - 5 * s * (1 - 7.4 * s))), r - 1 / mills)
    # Without the series the rounding of 1 + q / m, times the cube of a step of many units, would exceed r itself.
    return q, torch.where(far, s * (3 - s * (14 - 98 * s)), 2 * q * q + 1 + q / mills)


def _finite_range(z: Tensor) -> tuple[float, float]:
    """The interval in which squares of z, times any scale, are finite."""
    limit = 0.5e-3 * math.sqrt(torch.finfo(z.dtype).max)
    return -limit, limit
