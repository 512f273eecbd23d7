"""Surjections for symmetric densities: absolute value, sorting and random permutation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pushforward.errors import KindError
from pushforward.likelihood import Kind, Measure, Support
from pushforward.networks.mlp import MLP
from pushforward.numerics import Noise, sum_event, uniform_like, unsoftplus
from pushforward.numerics.checks import check_number, check_widths
from pushforward.registry import register
from pushforward.transforms.base import Shape, Step, Transform, outside
from pushforward.transforms.elementwise.functions import POSITIVE
from pushforward.transforms.validation import vector_width

__all__ = ["INCREASING", "Abs", "Gaps", "Sort", "StochasticPermutation"]


@register("transforms")
class Abs(Transform):
    """z = abs(x); contribution sum_i log p(sign x_i | z) (Nielsen et al. 2020, arXiv 2007.02731, table 2).

    An inference surjection onto [0, inf). It is EXACT if the rest of the chain has its mass there
    (:class:`~pushforward.distributions.HalfNormal`, or ``Inverse(Softplus(D))`` and any flow), and a lower bound otherwise.
    ``decode`` draws the signs from a generator, or uses the more probable ones without one. 0 counts as positive.

    Args:
        features: event shape.
        probability: probability of a positive sign; 1/2 makes the density symmetric in every coordinate.
        hidden: widths of the hidden layers of a network that changes the probabilities as functions of z, clamped to
            [-10, 10]; None for constant probabilities.

    Raises:
        ConfigError: for a probability outside (0, 1).
        KindError: with a base distribution of integers, of which 0 has a probability.

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
        check_number("probability", probability, 0, 1)
        self.features, self.probability = features, probability
        self.hidden = None if hidden is None else check_widths("hidden", hidden)
        self.has_rsample = self.hidden is None
        size = math.prod(self.in_shape)
        self.network = None if self.hidden is None else MLP(size, size, self.hidden, input_bound=10.0, output_gain=0.1)

    def measure(self, latent: Measure) -> Measure:
        """That of z; see :class:`~pushforward.transforms.Transform`."""
        return _without_ties(self, latent, "0 has one sign where its contribution counts two")

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """abs(x), with the log-probability of the signs."""
        z = x.abs()
        terms = F.logsigmoid(torch.where(x >= 0, 1.0, -1.0).to(x.dtype) * self._logits(z))
        return Step(z, sum_event(terms, len(self.in_shape)))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """z with signs drawn from a generator, or with the more probable signs without one."""
        drawn = isinstance(noise, torch.Generator)
        u = uniform_like(z, len(self.in_shape), noise) if drawn else torch.full_like(z, 0.5)
        return torch.where(u <= torch.sigmoid(self._logits(z)), z, -z)

    def _logits(self, z: Tensor) -> Tensor:
        fixed = math.log(self.probability) - math.log1p(-self.probability)
        if self.network is None:
            return torch.full_like(z, fixed)
        dims = len(self.in_shape)
        return fixed + self.network(z.flatten(z.dim() - dims)).to(z.dtype).reshape(z.shape)


def _without_ties(part: Transform, latent: Measure, why: str) -> Measure:
    """The measure, unless ties have a probability: that of integers."""
    if latent.name == "Counting":
        raise KindError(
            f"{type(part).__name__} is wrong for a probability on {latent}: {why}. Put it after the dequantization, or leave it out."
        )
    return Transform.measure(part, latent)


INCREASING = Support(within="increasing")


@register("transforms")
class Sort(Transform):
    """z = x in increasing order; contribution log p(order | z) (Nielsen et al. 2020, arXiv 2007.02731, table 2).

    An inference surjection onto z_1 <= ... <= z_D. It is EXACT if the rest of the chain has its mass there
    (:class:`~pushforward.distributions.SortedNormal`, or :class:`Gaps` and any flow), and a lower bound otherwise. With a
    uniform distribution of the order, whose contribution is -log D!, the density does not depend on the order of the
    coordinates. ``decode`` draws an order from a generator; without one it uses the most probable order (increasing, if all
    are equally probable).

    Args:
        features: number of coordinates D.
        hidden: widths of the hidden layers of a network w that gives the distribution of the order: x_1 is z_j with
            probability softmax(w(z))_j, x_2 is drawn in the same way from the remaining z_j, and so on (Plackett-Luce). None
            for a uniform distribution.

    Raises:
        ConfigError: for impossible widths.
        KindError: with a base distribution of integers, of which some may be equal.

    Example:
        >>> import torch
        >>> Sort(3).encode(torch.tensor([[2.0, -1.0, 0.0]]))[:2]              # -log 6
        (tensor([[-1.,  0.,  2.]]), tensor([-1.7918]))
    """

    many_to_one = True
    codomain = INCREASING

    def __init__(self, features: int, *, hidden: tuple[int, ...] | None = None) -> None:
        width = vector_width(features, "Sort")
        super().__init__(features)
        self.features = features
        self.hidden = None if hidden is None else check_widths("hidden", hidden)
        self.has_rsample = self.hidden is None
        self.network = (
            None if self.hidden is None else MLP(width, width, self.hidden, input_bound=10.0, output_gain=0.1)
        )

    def measure(self, latent: Measure) -> Measure:
        """That of z; see :class:`~pushforward.transforms.Transform`."""
        return _without_ties(self, latent, "equal coordinates have fewer orders than its contribution counts")

    def map_support(self, box: Support) -> Support | None:
        """The increasing vectors of a box."""
        return Support(box.low, box.high, "increasing") if box.within in ("", "increasing") and not box.ends else None

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """Sorted x, with the log-probability of its order."""
        z, order = torch.sort(x, dim=-1, stable=True)
        if self.network is None:
            return Step(z, self.zero_log_det(x) - math.lgamma(self.in_shape[0] + 1))
        rank = torch.argsort(order, dim=-1)  # of each coordinate of x
        weights = self._weights(z).gather(-1, rank)
        remaining = torch.logcumsumexp(weights.flip(-1), -1).flip(-1)  # over this coordinate and the following ones
        return Step(z, sum_event(weights - remaining, 1))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """z in an order drawn from a generator, or in the most probable order without one."""
        keys = self._weights(z)
        if isinstance(noise, torch.Generator):  # the largest Gumbel-perturbed weight first (Yellott 1977)
            u = uniform_like(z, 1, noise).clamp(min=torch.finfo(z.dtype).tiny)
            keys = keys - torch.log(-torch.log(u))
        return z.gather(-1, torch.argsort(keys, dim=-1, descending=True, stable=True))

    def _weights(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z) if self.network is None else self.network(z).to(z.dtype)


@register("transforms")
class Gaps(Transform):
    """z_1 = x_1, softplus(z_i) = x_i - x_(i-1): increasing coordinates to all reals, so that any flow can follow :class:`Sort`.

    A bijection with log abs det dz/dx = - sum over i > 1 of log sigmoid(z_i). Coordinates that do not increase have the
    contribution -inf.

    Args:
        features: number of coordinates D.

    Example:
        >>> import torch
        >>> gaps = Gaps(3)
        >>> x = torch.tensor([[-1.0, 0.0, 2.0]])
        >>> torch.allclose(gaps.decode(gaps.encode(x).z), x)
        True
    """

    domain = INCREASING

    def __init__(self, features: int) -> None:
        vector_width(features, "Gaps")
        super().__init__(features)
        self.features = features

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """The inverse softplus of the gaps; equal coordinates count as the smallest positive gap."""
        z = unsoftplus(torch.diff(x, dim=-1))
        contribution = outside(x, self.domain, 1) - sum_event(F.logsigmoid(z), 1)
        return Step(torch.cat((x[..., :1], z), -1), contribution)

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """Sums of gaps."""
        # torch's softplus returns z beyond 20, an error of 2e-9 that matters in float64.
        return torch.cat((z[..., :1], -F.logsigmoid(-z[..., 1:])), -1).cumsum(-1)

    def decode_with_contribution(
        self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None
    ) -> tuple[Tensor, Tensor]:
        """Sums of gaps, with the contribution of ``encode``."""
        return self.decode(z), -sum_event(F.logsigmoid(z[..., 1:]), 1)


@register("transforms")
class StochasticPermutation(Transform):
    """z is x in a random order, with all orders equally probable (Nielsen et al. 2020, table 2); contribution 0.

    Both directions are random, so log p(x) >= E log p(z): kind LOWER_BOUND, with equality if the density of the rest of the
    chain does not depend on the order. ``decode`` draws an order from a generator, or keeps the order without one.

    Args:
        features: number of coordinates D.

    Example:
        >>> import torch
        >>> StochasticPermutation(3).encode(torch.tensor([[5.0, 6.0, 7.0]])).z.sort().values
        tensor([[5., 6., 7.]])
    """

    kind = Kind.LOWER_BOUND
    _counts = True
    domain = None
    codomain = None

    def __init__(self, features: int) -> None:
        vector_width(features, "StochasticPermutation")
        super().__init__(features)
        self.features = features

    def encode(self, x: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Step:
        """x in an order drawn from a generator or from the content of the row."""
        return Step(x.gather(-1, torch.argsort(uniform_like(x, 1, noise), dim=-1)), self.zero_log_det(x))

    def decode(self, z: Tensor, context: Tensor | None = None, *, noise: Noise = None) -> Tensor:
        """z in an order drawn from a generator, or unchanged without one."""
        if not isinstance(noise, torch.Generator):
            return z
        return z.gather(-1, torch.argsort(uniform_like(z, 1, noise), dim=-1))
