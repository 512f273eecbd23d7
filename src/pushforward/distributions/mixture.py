"""Trainable mixture of diagonal normals."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor, nn

from pushforward.distributions.base import Distribution
from pushforward.numerics import bound_square, draw_category, soft_clamp, split_infinite, sum_event
from pushforward.numerics.checks import check_integer, check_positive, check_seed
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_event

__all__ = ["GaussianMixture"]


@register("distributions")
class GaussianMixture(Distribution):
    """Mixture of C diagonal normals: log p(z) = log sum_c w_c prod_i N(z_i; mu_ci, sigma_ci^2), with trainable weights, means and scales.

    A bijection cannot split one cluster into two, so data in separate clusters need a base distribution with several modes.
    Before training the means are random and the covariance of the mixture is near I. abs(log sigma) < ``max_log_scale``, so no
    component can collapse onto one row. Samples have no gradients, as they choose a component.

    Args:
        features: width, or a shape such as (channels, height, width).
        components: C.
        seed: of the initial means.
        max_log_scale: smooth bound on abs(log sigma).

    Raises:
        ConfigError: if ``components`` is not a positive integer, or the bound is not positive.

    Example:
        >>> import torch
        >>> base = GaussianMixture(2, components=3)
        >>> base.log_prob(torch.zeros(5, 2)).shape, base.sample(torch.Size([4])).shape
        (torch.Size([5]), torch.Size([4, 2]))
    """

    has_rsample = False

    def __init__(self, features: int | Shape, components: int = 10, seed: int = 0, max_log_scale: float = 7.0) -> None:
        check_mixture(components, max_log_scale)
        super().__init__(features)
        self.features, self.components, self.seed, self.max_log_scale = features, components, seed, max_log_scale
        size = (components, *self.shape)
        loc = torch.empty(size)
        if not loc.is_meta:  # loading a file builds the model without memory first
            generator = torch.Generator().manual_seed(check_seed(seed))
            loc.copy_(math.sqrt(0.5) * torch.randn(size, generator=generator, device="cpu"))
        self.loc = nn.Parameter(loc)
        self.log_scale = nn.Parameter(torch.full(size, 0.5 * math.log(0.5)))
        self.logits = nn.Parameter(torch.zeros(components))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``."""
        check_event(z, self.shape, type(self).__name__)
        dims, size = len(self.shape), math.prod(self.shape)
        z, far = split_infinite(z, dims)
        log_scale = soft_clamp(self.log_scale, self.max_log_scale)
        u = bound_square((z.unsqueeze(z.dim() - dims) - self.loc) * torch.exp(-log_scale), size)
        each = sum_event(-0.5 * u * u - log_scale, dims) + torch.log_softmax(self.logits, 0)
        return far + torch.logsumexp(each, -1) - 0.5 * math.log(2 * math.pi) * size

    @torch.no_grad()
    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``, without gradient."""
        index = draw_category(self.logits.expand(*batch, self.components), generator)
        noise = torch.randn((*batch, *self.shape), generator=generator, **self.like(generator))
        return self.loc[index] + torch.exp(soft_clamp(self.log_scale, self.max_log_scale))[index] * noise


def check_mixture(components: int, max_log_scale: float) -> None:
    """Check the arguments of a mixture.

    Raises:
        ConfigError: naming the argument.
    """
    check_integer("components", components)
    check_positive("max_log_scale", max_log_scale)
