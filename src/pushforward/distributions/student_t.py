"""Student-t distribution, for data with heavy tails."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor, nn

from pushforward.distributions.base import Distribution
from pushforward.numerics import log1p_square, split_infinite, sum_event
from pushforward.numerics.checks import check_positive
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_event

__all__ = ["StudentT"]

_LARGE = 1e6
"""Degrees of freedom from which on the constant is a series in 1 / df, whose error is below 1e-19."""
_LARGEST = 1e30
"""Of the degrees of freedom; larger ones are taken for this number, where squares in float32 still have digits."""


@register("distributions")
class StudentT(Distribution):
    """Independent Student-t with df = nu: log p(z) = sum_i [ c(nu) - (nu + 1)/2 log(1 + z_i^2 / nu) ].

    c(nu) = log Gamma((nu + 1)/2) - log Gamma(nu/2) - log(nu pi)/2. Transforms with bounded slopes do not change the tails of
    the base distribution (Jaini et al. 2020, arXiv 1907.04481), so heavy-tailed data need a heavy-tailed base: moments of
    order nu and above do not exist. Accurate up to abs(z) = 1e30 in float32, where z^2 overflows. A draw beyond the largest
    number of its type, which occurs for nu below 1, is replaced by that number.

    Args:
        features: width, or a shape such as (channels, height, width).
        df: degrees of freedom, positive; 1 is the Cauchy distribution, and large values approach the standard normal.
        trainable_df: whether log df of each coordinate is trainable; ``df`` is then its initial value.

    Raises:
        ConfigError: unless df is positive and finite.

    Example:
        >>> import torch
        >>> StudentT(1, df=1.0).log_prob(torch.zeros(1, 1))         # Cauchy: -log(pi)
        tensor([-1.1447])
    """

    def __init__(self, features: int | Shape, df: float = 5.0, trainable_df: bool = False) -> None:
        check_positive("df", df)
        super().__init__(features)
        self.features, self.df, self.trainable_df = features, df, trainable_df
        if trainable_df:
            self.log_df = nn.Parameter(torch.full(self.shape, math.log(df)))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``."""
        return sum_event(self.log_prob_terms(z), len(self.shape))

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate, ``(*batch, *shape)``."""
        check_event(z, self.shape, type(self).__name__)
        df = self._degrees(z.device)
        near = df.clamp(max=_LARGE)
        constant = torch.lgamma(0.5 * (near + 1)) - torch.lgamma(0.5 * near) - 0.5 * torch.log(near * math.pi)
        # The difference of log-gammas has no correct digit where these are large; its series has all of them.
        constant = torch.where(df > _LARGE, -0.5 * math.log(2 * math.pi) - 0.25 / df, constant)
        z, far = split_infinite(z, 0)  # an infinite z would make the gradient of log df NaN
        u = z * df.rsqrt().to(z.dtype)
        return far + constant.to(z.dtype) - (0.5 * (df + 1)).to(z.dtype) * log1p_square(u)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``, with gradients to ``log_df`` through the gamma draw."""
        like = self.like(generator)
        normal = torch.randn((*batch, *self.shape), generator=generator, **like)
        half = 0.5 * self._degrees(like["device"])
        half = half.expand(*batch, *self.shape)
        gamma = torch._standard_gamma(half, generator=generator)  # pyright: ignore[reportPrivateImportUsage]
        tiny = torch.finfo(gamma.dtype).tiny
        largest = torch.finfo(normal.dtype).max
        # t = normal / sqrt(chi2 / df), and chi2 = 2 gamma(df / 2).
        z = normal.double() * (half / gamma.clamp_min(tiny)).sqrt()
        return z.clamp(-largest, largest).to(normal.dtype)

    def _degrees(self, device: torch.device) -> Tensor:
        """Degrees of freedom in float64, as differences of log-gammas at large df have no correct digit in float32."""
        if self.trainable_df:
            return torch.exp(self.log_df.double()).clamp(max=_LARGEST)
        return torch.full((), min(self.df, _LARGEST), dtype=torch.float64, device=device)
