"""What surjections share: the density of coordinates that they drop or draw, given those that they keep."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import REAL, Lebesgue, Measure
from pushforward.numerics import Noise, bound_square, normal_like, sum_event
from pushforward.transforms.base import Transform
from pushforward.transforms.elementwise.monotone import Monotone
from pushforward.transforms.transformers.affine import AffineTransformer

__all__ = ["MAX_LOG_SCALE", "ConditionalDensity", "normal_log_density", "require_lebesgue", "start"]

MAX_LOG_SCALE = 5.0
"""Bound on abs(log scale) of the normal laws that are used where no other is asked for."""


class ConditionalDensity(nn.Module):
    """p(y | c) of a vector y of k real coordinates: a flow that reads c as its context takes y to a standard normal.

    Args:
        width: k.
        condition: width of c.
        flow: a bijection of width k with a context as wide as c; None is a normal whose mean and scale follow c.
        hidden: widths of the network of that normal.
        owner: for errors.

    Raises:
        ConfigError: if the flow does not fit.
        KindError: if it is no bijection.
    """

    def __init__(self, width: int, condition: int, flow: Transform | None, hidden: tuple[int, ...], owner: str) -> None:
        super().__init__()
        self.default = flow is None
        if flow is None:
            flow = Monotone(width, AffineTransformer(MAX_LOG_SCALE), context=condition, hidden=hidden)
        if not isinstance(flow, Transform) or flow.in_shape != (width,) or flow.out_shape != (width,):
            raise ConfigError(f"{owner} needs a conditional flow of {width} coordinates; got {flow!r:.80}.")
        if flow.context != condition:
            raise ConfigError(
                f"the conditional flow of {owner} must read a context of width {condition}; got {flow.context}."
            )
        if not flow.bijective:
            raise KindError(f"{type(flow).__name__} is not a bijection, so it has no density for {owner}.")
        self.flow = flow

    @property
    def chosen(self) -> Transform | None:
        """The flow, if it is not the default."""
        return None if self.default else self.flow

    def log_prob(self, y: Tensor, given: Tensor) -> Tensor:
        """log p(y | c), nats: ``(*batch, k)`` and ``(*batch, width of c)`` to ``batch``."""
        e, contribution = self.flow(y, given)
        return contribution + normal_log_density(e, 1)

    def draw(self, given: Tensor, noise: Noise) -> Tensor:
        """y ~ p(y | c) with a generator; without, the y behind 0, which is about the median."""
        e = start(given[..., :1].expand(*given.shape[:-1], *self.flow.out_shape), 1, noise)
        return self.flow.decode(e, given, noise=noise)

    def draw_with_log_prob(self, given: Tensor, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """y ~ p(y | c) from a generator or from the content of the rows of x, and log p(y | c)."""
        e = normal_like(x, 1, noise, self.flow.out_shape)
        y, contribution = self.flow.decode_with_contribution(e, given)
        return y, contribution + normal_log_density(e, 1)


def normal_log_density(e: Tensor, dims: int) -> Tensor:
    """Of a standard normal, summed over the last ``dims`` dimensions; finite as far as 1e19."""
    e = bound_square(e, 1024)
    return sum_event(-0.5 * e * e - 0.5 * math.log(2 * math.pi), dims)


def start(like: Tensor, dims: int, noise: Noise) -> Tensor:
    """Standard normal noise shaped as ``like`` from a generator; zeros where there is none."""
    return normal_like(like, dims, noise) if isinstance(noise, torch.Generator) else torch.zeros_like(like)


def require_lebesgue(latent: Measure, dim: int, owner: str) -> Measure:
    """Lebesgue(dim) of data whose latent density is on Lebesgue too.

    Raises:
        KindError: for any other latent measure.
    """
    if latent.name != "Lebesgue":
        raise KindError(f"{owner} joins densities on R^D; the rest of the chain is on {latent}.")
    return Lebesgue(dim)


def check_reals(transform: Transform, owner: str) -> None:
    """Refuse a transform that does not read all reals.

    Raises:
        ConfigError: naming the owner.
    """
    if transform.domain not in (None, REAL):
        raise ConfigError(
            f"{owner} works on all reals: its flow reads {transform.domain}; put bounded transforms before it."
        )
