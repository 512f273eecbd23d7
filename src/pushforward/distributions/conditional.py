"""Normal distribution whose means and scales are functions of the context."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from pushforward.distributions.base import Distribution, check_batch
from pushforward.networks.mlp import MLP
from pushforward.numerics import bound_square, soft_clamp, split_infinite, sum_event
from pushforward.numerics.checks import check_integer, check_positive, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_context, check_event

__all__ = ["ConditionalNormal"]


@register("distributions")
class ConditionalNormal(Distribution):
    """Diagonal normal given a context: log p(z | c) = sum_i log N(z_i; mu_i(c), sigma_i(c)^2).

    A multi-layer perceptron computes mu and log sigma; before training they are close to 0 for any context. The network clamps
    the context to [-10, 10]. Models standardize their context; standardize it yourself if you use this distribution alone.

    Args:
        features: width, or a shape such as (channels, height, width).
        context: width of the context.
        hidden: widths of the network's hidden layers.
        activation: of the network.
        max_log_scale: smooth bound on abs(log sigma).

    Raises:
        ConfigError: if a size is impossible.

    Example:
        >>> import torch
        >>> base = ConditionalNormal(2, context=3)
        >>> base.log_prob(torch.zeros(5, 2), torch.zeros(5, 3)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: int | Shape,
        context: int,
        hidden: tuple[int, ...] = (64,),
        activation: str = "relu",
        max_log_scale: float = 7.0,
    ) -> None:
        check_integer("context", context)
        check_positive("max_log_scale", max_log_scale)
        super().__init__(features)
        self.features, self.context, self.hidden = features, context, check_widths("hidden", hidden)
        self.activation, self.max_log_scale = activation, max_log_scale
        self.network = MLP(
            context,
            2 * math.prod(self.shape),
            self.hidden,
            activation=activation,
            input_bound=10.0,
            output_gain=0.01,
        )

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` and ``(*batch, context)`` to ``batch``."""
        return sum_event(self.log_prob_terms(z, context), len(self.shape))

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate given the context, ``(*batch, *shape)``."""
        check_event(z, self.shape, type(self).__name__)
        z, far = split_infinite(z, 0)
        loc, log_scale = self._normal(context)
        u = bound_square((z - loc) * torch.exp(-log_scale), math.prod(self.shape))
        return far - 0.5 * u * u - log_scale - 0.5 * math.log(2 * math.pi)

    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``, with gradients to the network and the context."""
        check_batch(context, self.context, batch, type(self).__name__)
        loc, log_scale = self._normal(context)
        noise = torch.randn((*batch, *self.shape), generator=generator, **self.like(generator))
        return loc + torch.exp(log_scale) * noise

    def _normal(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        check_context(context, self.context, "ConditionalNormal")
        assert context is not None
        raw = self.network(context).unflatten(-1, (2, *self.shape))
        loc, log_scale = raw.unbind(-1 - len(self.shape))
        return loc, soft_clamp(log_scale, self.max_log_scale)
