"""Annealed sampling with Hamiltonian transitions: from a simple distribution to a target through tempered ones.

Every call has a bounded number of evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pushforward.errors import InputError

__all__ = ["TemperedSample", "hmc_step", "temper"]

LogProb = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TemperedSample:
    """Result of :func:`temper`.

    Attributes:
        points: ``(n, D)``, approximately of the target.
        log_evidence: log of the ratio of the normalizing constants of target and start, nats.
        temperatures: exponents of the target's part, from 0 to 1.
        acceptance: mean acceptance of the transitions at the last temperature.
        complete: False if the temperatures ended early, or the last step was too large for the particles to follow the target.
    """

    points: Tensor
    log_evidence: float
    temperatures: list[float]
    acceptance: float
    complete: bool = True


def temper(
    log_start: LogProb,
    log_target: LogProb,
    points: Tensor,
    generator: torch.Generator,
    *,
    threshold: float = 0.5,
    transitions: int = 2,
    final_transitions: int = 6,
    leapfrog: int = 5,
    most: int = 60,
    stop_outside: bool = False,
) -> TemperedSample:
    """Sequential Monte Carlo through start^(1 - t) target^t, t from 0 to 1 (Del Moral, Doucet, Jasra 2006).

    Each temperature is chosen so that the effective sample size falls to ``threshold`` of the particles; then the particles
    are resampled and moved by Hamiltonian transitions whose scales follow the particles and whose step size follows the
    acceptance.

    Args:
        log_start: log-density of ``points``, up to a constant.
        log_target: log-density of the target, up to a constant; may be -inf.
        points: draws of the start, ``(n, D)``.
        generator: of the random numbers, on the device of the points.
        threshold: fraction of the particles that the effective sample size keeps.
        transitions: number of transitions at each temperature.
        final_transitions: number at temperature 1.
        leapfrog: steps of each transition.
        most: largest number of temperatures; after that the rest is one step.
        stop_outside: whether to end in place of that step, and as soon as all particles are beyond all starting points in one
            coordinate. Each temperature moves them by about their width, so a distant target would need very many.

    Raises:
        InputError: if the target is 0 at every point.
    """
    count = len(points)
    temperatures, log_evidence, step, acceptance = [0.0], 0.0, 0.3, 0.0
    ordered, complete = points.sort(0).values, True
    narrowest = 1e-6 * (ordered[3 * count // 4] - ordered[count // 4])  # in the units of the coordinates
    start, target = _values(log_start, points), _values(log_target, points)
    if not bool(torch.isfinite(target).any()):
        raise InputError(
            f"the density of this posterior is 0 at all {count:,} draws of the prior (or of the earlier round) from which its sampling begins: "
            "the observation lies far from everything that was simulated, so check its units, or simulate with a wider prior."
        )
    while temperatures[-1] < 1.0:
        difference = target - start
        now, last = temperatures[-1], len(temperatures) >= most
        if stop_outside and last:
            return TemperedSample(points, log_evidence, temperatures, acceptance, complete=False)
        after = _next_temperature(difference, now, threshold)
        if last:
            after, complete = 1.0, after == 1.0
        log_weights = (after - now) * difference
        log_evidence += float(torch.logsumexp(log_weights, 0) - math.log(count))
        probabilities = log_weights.softmax(0)
        ends = probabilities.cumsum(0)
        offsets = (
            torch.arange(count, device=points.device) + torch.rand(count, generator=generator, device=points.device)
        ) / count
        chosen = torch.searchsorted(ends / ends[-1], offsets.to(ends)).clamp(max=count - 1)
        points, start, target = points[chosen], start[chosen], target[chosen]
        temperatures.append(after)

        def log_prob(x: Tensor, t: float = after) -> Tensor:
            return (1 - t) * log_start(x) + t * log_target(x) if t < 1.0 else log_target(x)

        scale = torch.maximum(points.std(0), narrowest)
        for _ in range(final_transitions if after == 1.0 else transitions):
            points, acceptance = hmc_step(log_prob, points, step * scale, leapfrog, generator)
            step = min(max(step * math.exp(0.5 * (acceptance - 0.75)), 1e-3), 2.0)
        start, target = _values(log_start, points), _values(log_target, points)
        if stop_outside and bool(((points < ordered[0]) | (points > ordered[-1])).all(0).any()):
            complete = False
            break
    return TemperedSample(points, log_evidence, temperatures, acceptance, complete)


def hmc_step(
    log_prob: LogProb, points: Tensor, step: Tensor, leapfrog: int, generator: torch.Generator
) -> tuple[Tensor, float]:
    """One Hamiltonian transition of each point (Neal 2011), with a jittered step; returns the points and mean acceptance."""
    momentum = torch.randn(points.shape, generator=generator, device=points.device, dtype=points.dtype)
    jitter = 0.8 + 0.4 * torch.rand(len(points), 1, generator=generator, device=points.device, dtype=points.dtype)
    size = step * jitter
    limit = 1e6 / step  # a step has the units of the coordinates, and a gradient their inverse
    value, gradient = _value_and_gradient(log_prob, points, limit)
    x, p = points, momentum + 0.5 * size * gradient
    new_value = value
    for index in range(leapfrog):
        x = x + size * p
        new_value, gradient = _value_and_gradient(log_prob, x, limit)
        p = p + (0.5 if index == leapfrog - 1 else 1.0) * size * gradient
    log_ratio = new_value - value + 0.5 * (momentum.square().sum(-1) - p.square().sum(-1))
    log_ratio = torch.nan_to_num(log_ratio, nan=-math.inf)
    probability = log_ratio.clamp(max=0.0).exp()
    accepted = torch.rand(len(points), generator=generator, device=points.device, dtype=points.dtype) < probability
    return torch.where(accepted[:, None], x, points), float(probability.mean())


def _value_and_gradient(log_prob: LogProb, x: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Values, and gradients of at most ``limit`` in size, ``(D,)``."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = log_prob(x)
        finite = torch.isfinite(value)
        (gradient,) = torch.autograd.grad(torch.where(finite, value, 0.0).sum(), x)
    value = torch.where(finite, value, -math.inf)
    gradient = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
    return value.detach().to(x.dtype), gradient.clamp(-limit, limit)


@torch.no_grad()
def _values(log_prob: LogProb, x: Tensor) -> Tensor:
    values = log_prob(x).double()
    return torch.where(torch.isnan(values), -math.inf, values)


def _next_temperature(difference: Tensor, now: float, threshold: float) -> float:
    """The largest temperature at which the effective sample size is at least ``threshold`` of the particles."""

    def kept(t: float) -> float:
        weights = (t - now) * difference
        return float((2 * torch.logsumexp(weights, 0) - torch.logsumexp(2 * weights, 0)).exp()) / len(difference)

    if kept(1.0) >= threshold:
        return 1.0
    low, high = now, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if kept(middle) >= threshold else (low, middle)
    return max(low, now + 1e-6)
