"""Draws of a flow with a defensive part of heavier tails, and their importance weights.

Weights p / q of a well-fitted flow are nearly equal but for a few draws in the tails, where q was hardly trained; these few
decide k-hat. If a tenth of the draws comes from the same flow with a wide base, and weights refer to the mixture
(Hesterberg 1995; Owen and Zhou 2000), no weight exceeds 10 / 9 of p / q, and the tails are bounded by those of the wide part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.inference.targets import Target
from pushforward.likelihood import REAL
from pushforward.models.base import Model

__all__ = ["WeightedDraws", "mixture_log_density", "weighted_draws", "widen"]

_SHARE, _DF = 0.1, 5
_PART = 4096


@dataclass(frozen=True)
class WeightedDraws:
    """Draws of the mixture of a flow and its wide version.

    Attributes:
        points: ``(n, D)``, unconstrained; the draws of the flow itself come first.
        log_ratios: log p - log mixture, nats, ``(n,)``.
        own: number of draws of the flow itself.
        own_log_ratios: log p - log q of these.
    """

    points: Tensor
    log_ratios: Tensor
    own: int
    own_log_ratios: Tensor


@torch.no_grad()
def weighted_draws(flow: Model, target: Target, count: int, generator: torch.Generator) -> WeightedDraws:
    """Draw from the mixture 0.9 q + 0.1 r, where r is q with a multivariate Student-t base of 5 degrees of freedom.

    A flow whose base does not have all reals as its support has no wide part.

    Args:
        flow: q, on the unconstrained reals.
        target: p, up to a factor.
        count: number of draws.
        generator: of the random numbers, on the device of the flow.
    """
    width = flow.shape[0]
    wide = round(_SHARE * count) if flow.base.support == REAL else 0
    own = count - wide
    parts = [
        flow.base.sample(torch.Size((min(_PART, own - begin),)), generator=generator) for begin in range(0, own, _PART)
    ]
    if wide:
        like = {"device": parts[0].device, "dtype": torch.float64, "generator": generator}
        normal, chi_square = torch.randn(wide, width, **like), torch.randn(wide, _DF, **like).square().sum(1)
        parts.append((normal * (_DF / chi_square).sqrt()[:, None]).to(parts[0].dtype))
    z = torch.cat(parts)
    points, ratios, own_ratios = [], [], []
    for rows in z.split(_PART):
        x, contribution = flow.chain.decode_with_contribution(rows)
        base = flow.base.log_prob(rows).double()
        mixture = base
        if wide:
            mixture = torch.logaddexp(base + math.log(own / count), _student(rows.double()) + math.log(wide / count))
        value = target(x) - contribution.double()
        points.append(x.double())
        ratios.append(value - mixture)
        own_ratios.append(value - base)
    return WeightedDraws(torch.cat(points), torch.cat(ratios), own, torch.cat(own_ratios)[:own])


@torch.no_grad()
def mixture_log_density(flow: Model, x: Tensor) -> Tensor:
    """Log-density of the mixture of :func:`weighted_draws`, ``(n, D)`` to ``(n,)``, float64."""
    z, contribution = flow.chain.encode(x.to(flow.dtype))[:2]
    base = flow.base.log_prob(z).double()
    if flow.base.support == REAL:
        base = torch.logaddexp(base + math.log(1 - _SHARE), _student(z.double()) + math.log(_SHARE))
    return base + contribution.double()


def widen(z: Tensor, generator: torch.Generator) -> Tensor:
    """Noise whose first tenth of the rows is stretched as that of the wide part; normal noise becomes Student-t noise there.

    With gradients along the path of the samples, which vanish at every point where q = p, training may use such noise: it
    fits the tails too, where draws of q are rare.
    """
    count = round(_SHARE * len(z))
    chi_square = torch.randn(count, _DF, generator=generator, device=z.device).square().sum(1)
    stretch = (_DF / chi_square).sqrt().to(z.dtype)
    return torch.cat((z[:count] * stretch[:, None], z[count:]))


def _student(z: Tensor) -> Tensor:
    """Log-density of the multivariate Student-t distribution, ``(n, D)`` to ``(n,)``."""
    width = z.shape[-1]
    constant = math.lgamma((_DF + width) / 2) - math.lgamma(_DF / 2) - width / 2 * math.log(_DF * math.pi)
    return constant - (_DF + width) / 2 * torch.log1p(z.square().sum(-1) / _DF)
