"""Short Hamiltonian chains of the target, which reach parts of it that approximate draws lack, such as necks and long tails."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.inference.targets import Target
from pushforward.inference.tempering import hmc_step

__all__ = ["LACKS_NATS", "follow_target", "missing_part"]

_CHAINS = 256
_LEAPFROG = 25
_SHORTEST = 0.03
"""Smallest factor of the step of one chain in one transition: necks and bent tails need steps much shorter than the rest."""
_FIRST, _ALL, _KEPT = 8, 40, 16
"""Transitions, accepted by most, after which chains end if none has left the approximation; the most; and the last that are kept."""
LACKS_NATS = 3.0
"""An approximation lacks a point if its density there is below exp(-3), 5 %, of the normalized target's."""


def follow_target(
    target: Target,
    points: Tensor,
    lacks: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    *,
    seconds: float | None = None,
) -> Tensor:
    """Move at most 256 draws of an approximation by Hamiltonian transitions that leave the target invariant.

    Chains that start where both have mass come to parts of the target that are connected with it. A distribution that is at
    most C times the target stays so under transitions, so a part that a share s of the chains reaches has at least the mass s / C.
    Chains of which none has left the approximation end after 8 transitions of 25 steps that most of them accept; others make 40.

    Args:
        target: the log-density.
        points: draws of the approximation, ``(n, D)``; those outside the support of the target are skipped.
        lacks: points ``(n, D)`` to whether the approximation lacks them, ``(n,)``.
        generator: of the random numbers, on the device of the points.
        seconds: of time after which the chains end; None for no limit.

    Returns:
        Where the chains were after each of the last 16 transitions, ``(t, m, D)``, float64, the ends last; m is 0 if fewer
        than 2 points are inside the support.
    """
    start = time.monotonic()
    with torch.no_grad():
        points = points[:_CHAINS].double()
        points = points[torch.isfinite(target(points))]
    if len(points) < 2:
        return points[None, :0]
    narrowest = 1e-6 * points.std(0) + 1e-300
    step, accepted = 0.3, 0
    path = [points]
    for _ in range(_ALL):
        if accepted == _FIRST and not bool(lacks(points).any()):
            break
        if seconds is not None and time.monotonic() - start > seconds:
            break
        scale = torch.maximum(points.std(0), narrowest)
        factor = _SHORTEST ** torch.rand(len(points), 1, generator=generator, device=points.device, dtype=points.dtype)
        points, acceptance = hmc_step(target, points, step * factor * scale, _LEAPFROG, generator)
        step = min(max(step * math.exp(0.5 * (acceptance - 0.75)), 1e-3), 1.0)
        accepted += acceptance > 0.5
        path.append(points)
    return torch.stack(path[-_KEPT:])


def missing_part(
    target: Target,
    points: Tensor,
    log_prob: Callable[[Tensor], Tensor],
    log_evidence: float,
    generator: torch.Generator,
    *,
    seconds: float | None = None,
) -> tuple[float, Tensor]:
    """The share of short chains that end where an approximation has less than 5 % of the target's density, and where they were.

    Args:
        target: the log-density.
        points: draws of the approximation, ``(n, D)``.
        log_prob: log-density of the approximation, ``(n, D)`` to ``(n,)``.
        log_evidence: of the target, nats.
        generator: of the random numbers, on the device of the points.
        seconds: of time after which the chains end.
    """

    @torch.no_grad()
    def lacks(x: Tensor) -> Tensor:
        return target(x) - log_evidence - log_prob(x).double() > LACKS_NATS

    with target.trying():
        path = follow_target(target, points, lacks, generator, seconds=seconds)
        share = float(lacks(path[-1]).double().mean()) if path.shape[1] else 0.0
    return share, path
