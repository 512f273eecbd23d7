"""Training with alpha = 2 on annealed importance samples and a replay buffer (FAB), for targets with several modes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.errors import InputError
from pushforward.inference.targets import Target
from pushforward.inference.tempering import hmc_step
from pushforward.inference.weights import effective_sample_size
from pushforward.models.base import Model
from pushforward.numerics.checks import check_seed

__all__ = ["FabLoss", "ReplayBuffer", "annealed_samples"]

_EFFECTIVE = 0.05
"""Fraction of the buffer that stays effective."""


def annealed_samples(
    model: Model, target: Target, points: Tensor, generator: torch.Generator, *, step: float, temperatures: int = 4,
    leapfrog: int = 4, alpha: float = 2.0,
) -> tuple[Tensor, Tensor, float]:  # fmt: skip
    """Annealed importance sampling from q to q^(1 - alpha) p^alpha (Neal 2001; Midgley et al. 2023, sec. 3.1).

    That target is where the weights of the alpha-divergence have the least variance: for alpha = 2 it is p^2 / q, which puts
    points where p is large and q small.

    Args:
        model: q.
        target: p, up to a factor.
        points: draws of q, ``(n, D)``.
        generator: of the random numbers.
        step: step size of the Hamiltonian transitions, in units of the standard deviations of the points.
        temperatures: number of intermediate distributions.
        leapfrog: steps of each transition.
        alpha: of the divergence.

    Returns:
        Points, their log-weights ``(n,)``, and the mean acceptance.
    """

    def log_q(x: Tensor) -> Tensor:
        return model.log_prob(x.to(model.dtype)).double()

    def ends(x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            q, p = log_q(x), target(x)
        return q, (1 - alpha) * q + alpha * p

    points = points.double()
    scale = points.std(0)
    log_weights = torch.zeros(len(points), dtype=torch.float64, device=points.device)
    acceptance, before = 0.0, 0.0
    for index in range(1, temperatures + 1):
        start, end = ends(points)
        after = index / temperatures
        log_weights = log_weights + (after - before) * (end - start)
        before = after

        def log_prob(x: Tensor, t: float = after) -> Tensor:
            q = log_q(x)
            return (1 - t) * q + t * ((1 - alpha) * q + alpha * target(x))

        if index < temperatures:
            points, acceptance = hmc_step(log_prob, points, step * scale, leapfrog, generator)
    return points, torch.nan_to_num(log_weights, nan=-math.inf), acceptance


class ReplayBuffer:
    """Points with log-weights and the log q of the time they were added; draws are in proportion to the weights.

    Args:
        capacity: largest number of points; the oldest leave first.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.points = torch.empty(0)
        self.log_weights = torch.empty(0)
        self.log_q = torch.empty(0)

    def __len__(self) -> int:
        return len(self.points)

    def add(self, points: Tensor, log_weights: Tensor, log_q: Tensor) -> None:
        """Add points that have a finite log-weight."""
        kept = torch.isfinite(log_weights) & torch.isfinite(log_q)
        parts = [(points, "points"), (log_weights, "log_weights"), (log_q, "log_q")]
        for value, name in parts:
            old = getattr(self, name)
            new = value[kept].detach()
            setattr(self, name, (torch.cat((old.to(new), new)) if len(old) else new)[-self.capacity :])

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Indices drawn with the probabilities of the tempered weights, w^t.

        t is the largest number up to 1 with which a twentieth of the points remains effective. Far from the target a few
        points would have all the weight, and the flow would shrink to them; as q approaches p the weights become equal and t
        reaches 1.

        Raises:
            InputError: if the buffer is empty.
        """
        if not len(self):
            raise InputError(
                "the log-density is -inf or NaN at every annealed draw, so there is nothing to learn from: give starting points inside its support (starts=)."
            )
        exponent = self._exponent()
        return torch.multinomial((exponent * self.log_weights).softmax(0), count, replacement=True, generator=generator)

    def _exponent(self) -> float:
        """t, by bisection."""
        wanted = _EFFECTIVE * len(self)
        if effective_sample_size(self.log_weights) >= wanted:
            return 1.0
        low, high = 0.0, 1.0
        for _ in range(12):
            middle = (low + high) / 2
            enough = effective_sample_size(middle * self.log_weights) >= wanted
            low, high = (middle, high) if enough else (low, middle)
        return low

    def update(self, chosen: Tensor, log_q: Tensor) -> None:
        """Correct the weights of some points for the change of q since they were added: w is proportional to p^2 / q."""
        change = (self.log_q[chosen] - log_q).clamp(-10, 10)
        self.log_weights[chosen] = self.log_weights[chosen] + change
        self.log_q[chosen] = log_q


class FabLoss:
    """The loss of flow annealed importance sampling bootstrap (Midgley, Stimper, Simm, Schölkopf, Hernández-Lobato 2023).

    Each step draws a batch from the buffer in proportion to its weights, and minimizes -mean log q, with the weights
    corrected for the change of q (algorithm 1). Every ``refill`` steps the buffer gets annealed importance samples of the
    present flow. The buffer starts with rows near the modes that L-BFGS found, with the weights p^2 / q.

    A resumed run starts with a new buffer, so it is not equal bit by bit to an uninterrupted one.

    Args:
        model: the flow.
        target: the log-density.
        start: function that returns rows near the mass of the target.
        start_log_prob: log-density r from which ``start`` draws them; their weight is p^2 / (q r).
        seed: of the transitions and of the draws from the buffer.
        capacity: largest number of points in the buffer.
        refill: steps between two refills.
    """

    def __init__(
        self,
        model: Model,
        target: Target,
        start: Callable[[], Tensor],
        start_log_prob: Callable[[Tensor], Tensor],
        seed: int,
        *,
        capacity: int = 20_000,
        refill: int = 8,
    ) -> None:
        self.model, self.target, self.refill = model, target, refill
        self.start, self.start_log_prob = start, start_log_prob
        self.buffer = ReplayBuffer(capacity)
        self.step_size, self.count, self.seed = 0.2, 0, check_seed(seed)
        self._generator: torch.Generator | None = None

    def __call__(self, z: Tensor, context: Tensor | None, *, generator: torch.Generator) -> Tensor:
        """The loss of one step, a scalar; ``z`` is noise of the base."""
        if self._generator is None:
            self._generator = torch.Generator(z.device).manual_seed(self.seed)
            self._seed_buffer(z)
        if self.count % self.refill == 0:
            self._refill(z)
        self.count += 1
        chosen = self.buffer.draw(len(z), self._generator)
        points = self.buffer.points[chosen].to(z.dtype)
        log_q = self.model.log_prob(points)
        with torch.no_grad():
            correction = (self.buffer.log_q[chosen] - log_q.double()).clamp(-10, 10).exp()
            weights = correction / correction.mean()
        self.buffer.update(chosen, log_q.detach().double())
        return -(weights.to(log_q.dtype) * log_q).mean()

    @torch.no_grad()
    def _seed_buffer(self, z: Tensor) -> None:
        rows = self.start().to(z.device, z.dtype)
        log_q = self.model.log_prob(rows).double()
        value = 2 * self.target(rows) - self.start_log_prob(rows.double().cpu()).to(rows.device)
        self.buffer.add(rows.double(), value - log_q.clamp(min=float(log_q.max()) - 30.0), log_q)

    def _refill(self, z: Tensor) -> None:
        assert self._generator is not None
        with torch.no_grad():
            x = self.model.rsample(noise=z)
        points, log_weights, acceptance = annealed_samples(
            self.model, self.target, x, self._generator, step=self.step_size
        )
        self.step_size = min(max(self.step_size * math.exp(0.3 * (acceptance - 0.7)), 1e-3), 1.0)
        with torch.no_grad():
            log_q = self.model.log_prob(points.to(z.dtype)).double()
        self.buffer.add(points, log_weights, log_q)
