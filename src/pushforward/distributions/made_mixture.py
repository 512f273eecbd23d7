"""Autoregressive distribution whose conditionals are mixtures of normals: MADE MoG (Papamakarios et al. 2017)."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Size, Tensor

from pushforward.distributions.base import Distribution, check_batch
from pushforward.distributions.mixture import check_mixture
from pushforward.errors import ConfigError
from pushforward.networks.incremental import IncrementalMADE
from pushforward.networks.made import MADE
from pushforward.numerics import bound_square, draw_category, soft_clamp, split_infinite, sum_event
from pushforward.numerics.checks import check_widths
from pushforward.registry import register
from pushforward.transforms.base import check_context, check_event

__all__ = ["MADEMixture"]


@register("distributions")
class MADEMixture(Distribution):
    """MADE with mixture conditionals: log p(z) = sum_i log sum_c w_ci N(z_i; mu_ci, sigma_ci^2).

    One masked network computes the weights, means and scales of coordinate i from z_1 .. z_{i-1} and the context
    (Papamakarios, Pavlakou, Murray 2017, arXiv 1705.07057, sec. 3.1: "MADE MoG"; as the base of a MAF, "MAF MoG"). With one
    feature and no context it is a plain mixture. Before training it is close to a standard normal. ``log_prob`` takes one
    pass of the network; sampling takes D small steps with the arithmetic of one pass. Samples have no gradients, as they
    choose components.

    Args:
        features: D.
        components: C, the number of normals in each conditional; 10 in the paper.
        hidden: widths of the hidden layers of the network.
        context: width of the context; 0 for none.
        activation: of the network.
        max_log_scale: smooth bound on abs(log sigma), so that no component can collapse onto one value.

    Raises:
        ConfigError: if a size is impossible, or ``features`` is a shape of several dimensions.

    Example:
        >>> import torch
        >>> base = MADEMixture(3, components=2, context=1)
        >>> base.log_prob(torch.zeros(5, 3), torch.zeros(5, 1)).shape
        torch.Size([5])
    """

    has_rsample = False
    offset: Tensor

    def __init__(
        self,
        features: int,
        components: int = 10,
        hidden: tuple[int, ...] = (64, 64),
        context: int = 0,
        activation: str = "relu",
        max_log_scale: float = 7.0,
    ) -> None:
        check_mixture(components, max_log_scale)
        super().__init__(features)
        if len(self.shape) != 1:
            raise ConfigError(
                f"MADEMixture is a distribution of vectors, so features must be a width such as 6; got {features!r}."
            )
        self.features, self.components, self.hidden, self.context = (
            features,
            components,
            check_widths("hidden", hidden),
            context,
        )
        self.activation, self.max_log_scale = activation, max_log_scale
        width = self.sample_passes = self.shape[0]
        self.network = MADE(width, 3 * components, self.hidden, context=context, activation=activation, output_gain=0.1)
        # Equal components would get equal gradients. Their means start at halved quantiles of the normal, and their widths make
        # the variance of the mixture 1.
        quantiles = [0.5 * NormalDist().inv_cdf((c + 0.5) / components) for c in range(components)]
        self.log_width = 0.5 * math.log(1 - sum(q * q for q in quantiles) / components)
        self.register_buffer("offset", torch.tensor(quantiles, dtype=torch.get_default_dtype()))

    @property
    def autoregressive_order(self) -> tuple[int, ...]:
        """From the first coordinate to the last."""
        return tuple(range(self.shape[0]))

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, features)`` to ``batch``."""
        check_event(z, self.shape, type(self).__name__)
        check_context(context, self.context, "MADEMixture")
        z, far = split_infinite(z, 1)
        return far + sum_event(self._terms(z, context), 1)

    def log_prob_terms(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each coordinate given those before it, ``(*batch, features)``; -inf for infinite coordinates."""
        check_event(z, self.shape, type(self).__name__)
        check_context(context, self.context, "MADEMixture")
        finite = torch.where(torch.isinf(z), 0.0, z)
        return torch.where(torch.isinf(z), -math.inf, self._terms(finite, context))

    def _terms(self, z: Tensor, context: Tensor | None) -> Tensor:
        log_weight, loc, log_scale = self._mixture(z, context)
        u = bound_square((z.unsqueeze(-1) - loc) * torch.exp(-log_scale), self.shape[0])
        return torch.logsumexp(log_weight - 0.5 * u * u - log_scale, -1) - 0.5 * math.log(2 * math.pi)

    @torch.no_grad()
    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, features)``, without gradient, one coordinate after the other."""
        check_batch(context, self.context, batch, type(self).__name__)
        noise = torch.randn((*batch, *self.shape), generator=generator, **self.like(generator))
        if self.context and context is not None:
            context = context.expand(*batch, context.shape[-1]).reshape(-1, context.shape[-1])
        rows = noise.reshape(-1, self.shape[0])
        z: list[Tensor] = []
        with torch.autocast(noise.device.type, enabled=False):
            network = IncrementalMADE(self.network, rows.shape[0], self._cast(context))
            for each in rows.split(1, -1):
                log_weight, loc, log_scale = self._split(network.step().squeeze(1).t())
                index = draw_category(log_weight, generator).unsqueeze(-1)
                z.append(loc.gather(-1, index) + torch.exp(log_scale.gather(-1, index)) * each)
                network.feed(z[-1].t())
        return torch.cat(z, -1).reshape(noise.shape)

    def _mixture(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales of every conditional, each ``(*batch, features, components)``."""
        raw = self.network(z.to(self.offset.dtype), self._cast(context)).to(
            z.dtype
        )  # z may be float64 with float32 weights
        return self._split(raw.movedim(0, -1))

    def _cast(self, context: Tensor | None) -> Tensor | None:
        """The context in the type of the weights."""
        return None if context is None else context.to(self.offset.dtype)

    def _split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales, each ``(*, components)``, from raw ``(*, 3 * components)``."""
        logits, loc, log_scale = raw.chunk(3, -1)
        log_scale = soft_clamp(log_scale + self.log_width, self.max_log_scale)
        return torch.log_softmax(logits, -1), loc + self.offset, log_scale
