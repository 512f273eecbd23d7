"""Normal distribution, standard or with a trainable diagonal."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor, nn

from pushforward.distributions.base import Distribution
from pushforward.numerics import split_infinite, sum_event
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_event

__all__ = ["Normal"]


@register("distributions")
class Normal(Distribution):
    """Independent normals: log p(z) = sum_i [ -u_i^2 / 2 - log sigma_i - log(2 pi) / 2 ], u = (z - mu) / sigma.

    Standard (mu = 0, sigma = 1) unless ``trainable``, and before training in any case.

    Args:
        features: width, or a shape such as (channels, height, width).
        trainable: whether ``loc`` (mu) and ``log_scale`` (log sigma) of each coordinate are trainable.

    Raises:
        ConfigError: if ``features`` is not made of positive integers.

    Example:
        >>> import torch
        >>> Normal(2).log_prob(torch.zeros(1, 2))           # -log(2 pi)
        tensor([-1.8379])
    """

    def __init__(self, features: int | Shape, trainable: bool = False) -> None:
        super().__init__(features)
        self.features, self.trainable = features, trainable
        if trainable:
            self.loc = nn.Parameter(torch.zeros(self.shape))
            self.log_scale = nn.Parameter(torch.zeros(self.shape))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``."""
        check_event(z, self.shape, type(self).__name__)
        dims, constant = len(self.shape), -0.5 * math.log(2 * math.pi) * math.prod(self.shape)
        if not self.trainable:
            return torch.rsub(sum_event(z * z, dims), constant, alpha=0.5)
        u, far = self._standardized(z)
        return torch.rsub(sum_event(u * u, dims), constant, alpha=0.5) + sum_event(far - self.log_scale, dims)

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate, ``(*batch, *shape)``."""
        check_event(z, self.shape, type(self).__name__)
        if not self.trainable:
            return -0.5 * z * z - 0.5 * math.log(2 * math.pi)
        u, far = self._standardized(z)
        return far - 0.5 * u * u - self.log_scale - 0.5 * math.log(2 * math.pi)

    def _standardized(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(z - mu) / sigma, and -inf where z is infinite (its square would make the parameters' gradients NaN)."""
        z, far = split_infinite(z, 0)
        return (z - self.loc) * torch.exp(-self.log_scale), far

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``, with gradients to ``loc`` and ``log_scale``."""
        noise = torch.randn((*batch, *self.shape), generator=generator, **self.like(generator))
        return self.loc + torch.exp(self.log_scale) * noise if self.trainable else noise
