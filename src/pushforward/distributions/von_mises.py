"""Von Mises distribution, the analog of the normal on the circle."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor, nn

from pushforward.distributions.base import Distribution
from pushforward.likelihood import CIRCLE, reach
from pushforward.numerics import sum_event
from pushforward.numerics.checks import check_number
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_event

__all__ = ["VonMises"]

# Beyond these the distribution is uniform or a point, to the precision of an angle in float32.
_FLATTEST, _SHARPEST = 1e-8, 1e8


@register("distributions")
class VonMises(Distribution):
    """Independent von Mises angles: log p(z) = sum_i [ kappa_i cos(z_i - mu_i) - log(2 pi I0(kappa_i)) ].

    The data are angles in radians in [-pi, pi]; other numbers have log-density -inf, so map other angles to this range first, by
    ``torch.remainder(angle + pi, 2 * pi) - pi``. The uniform distribution of angles is ``Uniform(features, -math.pi, math.pi)``.

    Args:
        features: width, or a shape such as (channels, height, width).
        concentration: kappa, from 1e-8 (nearly uniform) to 1e8 (nearly normal with variance 1 / kappa).
        trainable: whether ``loc`` (mu, initially 0) and ``log_concentration`` of each coordinate are trainable. Samples then
            have no gradients.

    Raises:
        ConfigError: for a concentration outside that range.

    Example:
        >>> import torch
        >>> VonMises(1, concentration=2.0).log_prob(torch.tensor([[0.0], [3.0], [4.0]]))
        tensor([-0.6619, -4.6419,    -inf])
    """

    def __init__(self, features: int | Shape, concentration: float = 1.0, trainable: bool = False) -> None:
        check_number("concentration", concentration, _FLATTEST, _SHARPEST, closed="both")
        super().__init__(features)
        self.features, self.concentration, self.trainable = features, concentration, trainable
        self.support = CIRCLE
        self.has_rsample = not trainable
        if trainable:
            self.loc = nn.Parameter(torch.zeros(self.shape))
            self.log_concentration = nn.Parameter(torch.full(self.shape, math.log(concentration)))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``."""
        return sum_event(self.log_prob_terms(z), len(self.shape))

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate, ``(*batch, *shape)``."""
        check_event(z, self.shape, type(self).__name__)
        kappa = self._kappa(z.dtype, z.device)
        low, high = reach(-math.pi, math.pi)
        outside = (z < low) | (z > high)
        angle = z.clamp(-math.pi, math.pi)
        if self.trainable:
            angle = angle - self.loc
        # kappa (cos a - 1) without cancellation; i0e(kappa) = exp(-kappa) I0(kappa) stays finite for any kappa.
        core = -2.0 * kappa * torch.sin(0.5 * angle) ** 2
        # In float64, as the gradient of i0e has no correct digit in float32 from a kappa of 1e6 on.
        each = core - torch.log(torch.special.i0e(kappa.double())).to(z.dtype) - math.log(2 * math.pi)
        return torch.where(outside, -math.inf, each)

    @torch.no_grad()
    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)`` on [-pi, pi), by rejection from a wrapped Cauchy (Best and Fisher 1979)."""
        like = self.like(generator)
        kappa = self._kappa(torch.float64, like["device"]).expand(*batch, *self.shape)
        # rho = (r - sqrt(2 r)) / (2 kappa) with r = 1 + root, in a form without cancellation at small kappa.
        root = torch.sqrt(1 + 4 * kappa**2)
        rho = 2 * kappa * torch.sqrt(1 + root) / ((torch.sqrt(1 + root) + math.sqrt(2)) * (1 + root))
        s = (1 + rho**2) / (2 * rho)
        angle = torch.zeros_like(kappa)
        waiting = torch.ones_like(kappa, dtype=torch.bool)
        while waiting.any():
            u = torch.rand((3, *kappa.shape), dtype=torch.float64, device=kappa.device, generator=generator)
            turn = torch.cos(math.pi * u[0])
            cosine = (1 + s * turn) / (s + turn)
            c = kappa * (s - cosine)
            # "Not below", so that NaN weights also end the loop and give NaN samples.
            accept = waiting & ~(torch.log(c) + 1 - c < torch.log(u[1]))
            drawn = torch.arccos(cosine.clamp(-1, 1)) * torch.where(u[2] < 0.5, -1.0, 1.0)
            angle = torch.where(accept, drawn, angle)
            waiting = waiting & ~accept
        if self.trainable:
            angle = torch.remainder(angle + self.loc + math.pi, 2 * math.pi) - math.pi
        # pi and -pi are the same angle, and rounding to float32 can exceed pi.
        angle = angle.to(like["dtype"])
        return torch.where(angle >= math.pi, -math.pi, angle)

    def _kappa(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        if self.trainable:
            limits = torch.finfo(self.log_concentration.dtype)
            least, most = max(_FLATTEST, limits.tiny), min(_SHARPEST, limits.max)
            return torch.exp(self.log_concentration).clamp(least, most).to(dtype)
        return torch.full((), self.concentration, dtype=dtype, device=device)
