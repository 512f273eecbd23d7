"""An autoencoder within a flow whose data are extended by linear functions of themselves (Silvestri et al. 2023)."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError
from pushforward.likelihood import Extended, Kind, Measure
from pushforward.numerics import Noise, normal_like, sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.embeddings.autoencode import Codec
from pushforward.transforms.surjections.conditional import require_lebesgue

__all__ = ["LinearAutoencode"]


@register("transforms")
class LinearAutoencode(Codec):
    """Linear form of an autoencoder within a flow (Silvestri, Roos, Ambrogioni 2023, arXiv 2205.09546).

    The data are extended by u = W x, d further numbers:

        z_1 = mu_e(x) + sigma_e(x) F(u),    delta = (x - mu_d(z_1)) / sigma_d(z_1),    z = (z_1, delta),
        contribution = sum log sigma_e - sum log sigma_d + log abs det F.

    With ``scale = 0`` the number is the log-density of (x, u) at u = W x, EXACT on Extended(D + d, D): neither log p(x) nor a
    bound of it, as log p(u | x) is a density that may be large. With ``scale > 0`` u is drawn from N(W x, scale^2) and its
    log-density taken out again, so that several draws in ``evaluate`` give an importance estimate of log p(x): LOWER_BOUND, on
    Lebesgue(D). ``decode`` does not need u.

    Args:
        features: D, or (channels, height, width).
        latent: d.
        flow: F, as in :class:`~pushforward.transforms.Autoencode`.
        scale: standard deviation of u around W x; 0 for the extended density.
        hidden: widths of the hidden layers of encoder and decoder.
        channels: widths of the convolutions instead, for images; each halves the sides.
        activation: of the networks.

    Raises:
        ConfigError: for impossible sizes, or a scale that is negative or not finite.
        KindError: if ``flow`` is no bijection, or the rest is no density on R^(D + d).

    Example:
        >>> import torch
        >>> from pushforward.likelihood import Lebesgue
        >>> wider = LinearAutoencode(5, latent=2, hidden=(8,))
        >>> str(wider.measure(Lebesgue(7))), str(wider.reduced(0.1).measure(Lebesgue(7)))
        ('Extended(7, 5)', 'Lebesgue(5)')
    """

    supports_float64 = False

    def __init__(
        self,
        features: int | Shape,
        latent: int = 1,
        flow: Transform | None = None,
        *,
        scale: float = 0.0,
        hidden: tuple[int, ...] = (128, 128),
        channels: tuple[int, ...] = (),
        activation: str = "relu",
    ) -> None:
        super().__init__(features, latent, flow, hidden, channels, activation)
        self.scale = _check_scale(scale, 0.0)
        self.out_shape = (math.prod(self.in_shape) + latent,)
        self.extension = nn.Linear(math.prod(self.in_shape), latent, bias=False)

    @property
    def kind(self) -> Kind:  # pyright: ignore[reportIncompatibleVariableOverride]
        """EXACT for the extended density, LOWER_BOUND for the draw that reduces it."""
        return Kind.LOWER_BOUND if self.scale else Kind.EXACT

    def reduced(self, scale: float) -> LinearAutoencode:
        """This transform with u drawn from N(W x, scale^2); it shares its weights.

        Raises:
            ConfigError: unless the scale is positive and finite.
        """
        other = copy.copy(self)
        other.scale = _check_scale(scale, math.ulp(0.0))
        return other

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """``(*batch, *features)`` to ``(*batch, D + d)``: the code and then the residuals."""
        flat = self.flat(x)
        u, contribution = self.extension(flat).to(x.dtype), self.zero_log_det(x)
        if self.scale:
            e = normal_like(flat, 1, noise, (self.latent,))
            u = u + self.scale * e
            contribution = sum_event(0.5 * e * e + 0.5 * math.log(2 * math.pi) + math.log(self.scale), 1)
        moved, log_det = self.moved(u)
        mean, log_scale = self.code(x)
        code = mean + log_scale.exp() * moved
        center, log_spread = self.law(code)
        delta = (flat - center) * torch.exp(-log_spread)
        contribution = contribution + log_det + sum_event(log_scale, 1) - sum_event(log_spread, 1)
        return Step(torch.cat((code, delta), -1), contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """``(*batch, D + d)`` to ``(*batch, *features)``: mu_d + sigma_d delta."""
        center, log_spread = self.law(z[..., : self.latent])
        flat = center + log_spread.exp() * z[..., self.latent :]
        return flat.reshape(*z.shape[:-1], *self.in_shape)

    def measure(self, latent: Measure) -> Measure:
        """Lebesgue(D + d) becomes Extended(D + d, D), or Lebesgue(D) where u is drawn."""
        size = math.prod(self.in_shape)
        plain = require_lebesgue(latent, size, "LinearAutoencode")
        return plain if self.scale else Extended(size + self.latent, size)


def _check_scale(scale: float, least: float) -> float:
    if not least <= scale < math.inf:
        raise ConfigError(f"scale must be {'positive' if least else 'at least 0'} and finite; got {scale!r}.")
    return scale
