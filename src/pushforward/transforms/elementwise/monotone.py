"""Elementwise transform with a learned monotone function of each coordinate, which may depend on the context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.networks.mlp import MLP
from pushforward.numerics import Noise, sum_event
from pushforward.numerics.checks import check_integer, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Step, Transform, check_context, within
from pushforward.transforms.splines.rational_quadratic import SplineTransformer
from pushforward.transforms.transformers.base import Transformer, check_transformer, expand_parameters
from pushforward.transforms.validation import vector_width

__all__ = ["Monotone"]


@register("transforms")
class Monotone(Transform):
    """z_i = f(x_i; theta_i), where theta_i is learned directly or a function of the context.

    log abs det dz/dx = sum of log f'. Without a context it transforms each marginal by itself. In one dimension, with a
    spline as transformer, it can approximate any density.

    Args:
        features: number of coordinates D.
        transformer: the function f, a rational-quadratic spline by default.
        context: width of the context; 0 for parameters that are learned directly.
        hidden: widths of the network that reads the context.

    Raises:
        ConfigError: if the event is not a vector, or for impossible widths.

    Example:
        >>> import torch
        >>> transform = Monotone(1)
        >>> transform.encode(torch.tensor([[0.5]])).z.detach()        # the identity before training
        tensor([[0.5000]])
    """

    autoregressive_order = "any"

    def __init__(
        self,
        features: int,
        transformer: Transformer | None = None,
        *,
        context: int = 0,
        hidden: tuple[int, ...] = (64, 64),
    ) -> None:
        super().__init__(features)
        features = vector_width(features, "Monotone")
        check_integer("context", context, 0)
        self.features, self.transformer = features, check_transformer(transformer or SplineTransformer())
        self.context, self.hidden = context, check_widths("hidden", hidden)
        self.domain = self.codomain = self.transformer.support
        count = self.transformer.parameters
        self.network = MLP(context, count * features, hidden, input_bound=10.0, output_gain=0.1) if context else None
        self.free = None if context else nn.Parameter(torch.zeros(count, features))

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Data to noise."""
        z, slopes = self.transformer.forward(x, self._raw(x, context))
        return Step(z, within(sum_event(slopes, 1), x, self.domain, 1))

    def encode_terms(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """Data to noise, with log f' of each coordinate, both ``(*batch, D)``; -inf outside the domain."""
        z, slopes = self.transformer.forward(x, self._raw(x, context))
        return z, within(slopes, x, self.domain, 0)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Noise to data."""
        return self.transformer.inverse(z, self._raw(z, context))[0]

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Noise to data, with the contribution of ``encode``."""
        x, slopes = self.transformer.inverse(z, self._raw(z, context))
        return x, sum_event(slopes, 1)

    def _raw(self, x: Tensor, context: Tensor | None) -> Tensor:
        if self.network is None:
            assert self.free is not None
            return expand_parameters(self.free, x)
        check_context(context, self.context, "Monotone")
        raw = self.network(context).to(x.dtype)
        return raw.unflatten(-1, (self.transformer.parameters, self.features)).movedim(-2, 0)
