"""Shared parts of surjections: the density of the coordinates that they drop or draw, given those that they keep."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pushforward.errors import ConfigError, KindError
from pushforward.likelihood import REAL, Lebesgue, Measure
from pushforward.numerics import Noise, bound_square, normal_like, sum_event
from pushforward.transforms.base import Transform, refuse_batch_statistics
from pushforward.transforms.elementwise.monotone import Monotone
from pushforward.transforms.transformers.affine import AffineTransformer

__all__ = ["MAX_LOG_SCALE", "ConditionalDensity", "base_noise", "check_reals", "normal_log_density", "require_lebesgue"]

MAX_LOG_SCALE = 5.0
"""Smooth bound on abs(log scale) of the default conditional normals."""


class ConditionalDensity(nn.Module):
    """p(y | c) of a vector y of k real coordinates: a flow with context c transforms y to a standard normal variable.

    Args:
        width: number of coordinates k of y.
        condition: width of c.
        flow: a bijection of width k with a context of the width of c; None for a normal with mean and scale from a network.
        hidden: widths of the hidden layers of that network.
        owner: name of the transform, for error messages.

    Raises:
        ConfigError: if the flow does not fit.
        KindError: if it is not a bijection, or has batch normalization.
    """

    def __init__(self, width: int, condition: int, flow: Transform | None, hidden: tuple[int, ...], owner: str) -> None:
        super().__init__()
        self.default = flow is None
        if flow is None:
            flow = Monotone(width, AffineTransformer(MAX_LOG_SCALE), context=condition, hidden=hidden)
        if not isinstance(flow, Transform) or flow.in_shape != (width,) or flow.out_shape != (width,):
            raise ConfigError(
                f"the conditional flow of {owner} must be a transform of {width} coordinates; got {flow!r:.80}."
            )
        if flow.context != condition:
            raise ConfigError(
                f"the conditional flow of {owner} must read a context of width {condition}; got {flow.context}."
            )
        if not flow.bijective:
            raise KindError(
                f"{type(flow).__name__} is not a bijection, so it cannot be the conditional flow of {owner}."
            )
        refuse_batch_statistics(flow, owner)
        self.flow = flow

    @property
    def given_flow(self) -> Transform | None:
        """The flow that was given, or None for the default."""
        return None if self.default else self.flow

    def log_prob(self, y: Tensor, condition: Tensor) -> Tensor:
        """log p(y | c), nats: ``(*batch, k)`` and ``(*batch, width of c)`` to ``batch``."""
        e, contribution = self.flow(y, condition)
        return contribution + normal_log_density(e, 1)

    def draw(self, condition: Tensor, noise: Noise) -> Tensor:
        """y ~ p(y | c) with a generator; without one the y with latent value 0, which is near the median."""
        e = base_noise(condition[..., :1].expand(*condition.shape[:-1], *self.flow.out_shape), 1, noise)
        return self.flow.decode(e, condition, noise=noise)

    def draw_with_log_prob(self, condition: Tensor, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """y ~ p(y | c) from a generator or from the content of the rows of x, and log p(y | c)."""
        e = normal_like(x, 1, noise, self.flow.out_shape)
        y, contribution = self.flow.decode_with_contribution(e, condition)
        return y, contribution + normal_log_density(e, 1)


def normal_log_density(e: Tensor, dims: int) -> Tensor:
    """Log-density of a standard normal, summed over the last ``dims`` dimensions; finite up to abs(e) = 1e19."""
    e = bound_square(e, 1024)
    return sum_event(-0.5 * e * e - 0.5 * math.log(2 * math.pi), dims)


def base_noise(like: Tensor, dims: int, noise: Noise) -> Tensor:
    """Standard normal noise shaped as ``like`` from a generator; zeros without one."""
    return normal_like(like, dims, noise) if isinstance(noise, torch.Generator) else torch.zeros_like(like)


def require_lebesgue(latent: Measure, dim: int, owner: str) -> Measure:
    """Lebesgue(dim), the measure of the data, if the latent density is on a Lebesgue measure.

    Raises:
        KindError: for any other latent measure.
    """
    if latent.name != "Lebesgue":
        raise KindError(f"{owner} needs a latent density on a Lebesgue measure; the rest of the chain is on {latent}.")
    return Lebesgue(dim)


def check_reals(transform: Transform, owner: str) -> None:
    """Refuse a transform whose domain or image is not all reals: a normal on the rest of them would not have mass 1.

    Raises:
        ConfigError: naming the owner.
    """
    if transform.domain not in (None, REAL):
        raise ConfigError(
            f"the flow of {owner} must have all reals as its domain, not {transform.domain}: put bounded transforms before it."
        )
    if transform.codomain not in (None, REAL):
        raise ConfigError(
            f"the flow of {owner} must map onto all reals, not {transform.codomain}, because its noise is normal: end it with a transform to "
            "the reals, such as Logit."
        )
