"""Absolute value: the sign leaves, so that a symmetric density is learned once."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.errors import ConfigError
from pushforward.networks.mlp import MLP, check_hidden
from pushforward.numerics import Noise, sum_event, uniform_like
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform
from pushforward.transforms.elementwise.functions import POSITIVE

__all__ = ["Abs"]


@register("transforms")
class Abs(Transform):
    """z = abs(x); contribution sum_i log p(sign x_i | z) (Nielsen et al. 2020, arXiv 2007.02731, table 2).

    An inference surjection onto [0, inf). It is EXACT where the rest of the chain has its mass there
    (:class:`~pushforward.distributions.HalfNormal`, or ``Inverse(Softplus(D))`` and any flow), and else a lower bound. ``decode``
    draws the signs if a generator is given, and else takes the more probable ones. 0 counts as positive.

    Args:
        features: event shape.
        probability: of a positive sign; 1/2 makes the density symmetric in every coordinate.
        hidden: widths of a network that moves the probabilities as functions of z; None keeps them fixed. It reads the
            coordinates clamped to [-10, 10].

    Raises:
        ConfigError: for a probability outside (0, 1).

    Example:
        >>> import torch
        >>> Abs(2).encode(torch.tensor([[-3.0, 1.0]]))[:2]                 # -2 log 2
        (tensor([[3., 1.]]), tensor([-1.3863]))
    """

    many_to_one = True
    codomain = POSITIVE

    def __init__(
        self, features: int | Shape, probability: float = 0.5, *, hidden: tuple[int, ...] | None = None
    ) -> None:
        super().__init__(features)
        if not 0 < probability < 1:
            raise ConfigError(f"probability must lie in (0, 1); got {probability!r}.")
        self.features, self.probability = features, probability
        self.hidden = None if hidden is None else check_hidden(hidden, False)
        self.has_rsample = self.hidden is None
        size = math.prod(self.in_shape)
        self.network = None if self.hidden is None else MLP(size, size, self.hidden, input_bound=10.0, output_gain=0.1)

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """abs(x), with the log-probability of the signs."""
        z = x.abs()
        terms = F.logsigmoid(torch.where(x >= 0, 1.0, -1.0).to(x.dtype) * self._logits(z))
        return Step(z, sum_event(terms, len(self.in_shape)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """z with signs drawn from a generator, or with the more probable ones."""
        drawn = isinstance(noise, torch.Generator)
        u = uniform_like(z, len(self.in_shape), noise) if drawn else torch.full_like(z, 0.5)
        return torch.where(u <= torch.sigmoid(self._logits(z)), z, -z)

    def _logits(self, z: Tensor) -> Tensor:
        fixed = math.log(self.probability) - math.log1p(-self.probability)
        if self.network is None:
            return torch.full_like(z, fixed)
        dims = len(self.in_shape)
        moved = self.network(z.flatten(z.dim() - dims)).to(z.dtype).reshape(z.shape)
        return fixed + moved
