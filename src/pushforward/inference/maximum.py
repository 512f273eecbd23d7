"""The parameters of highest posterior density, by L-BFGS from the best draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.stats import chi2
from torch import Tensor

from pushforward.inference.priors import Prior
from pushforward.numerics import logmeanexp

__all__ = ["Kernel", "highest_density"]

LogDensity = Callable[[Tensor], Tensor]

_ITERATIONS = 200
_PRECISION = 1e-6
"""Relative change of the log-density at which a climb ends, since networks compute in float32."""
_RANGE = 3.0
"""How far beyond the draws the search goes, in their standard deviations on the reals."""
_WIDTH = 0.25
"""Deviation of a kernel, in deviations of the posterior around it."""
_NEAR = 0.2
"""Part of the draws from which these deviations are computed."""
_POINTS = 32
"""Points of a kernel beside its middle."""
_ROWS = 16_384
"""Rows whose density is computed at once."""


def highest_density(
    log_density: LogDensity, prior: Prior, draws: Tensor, starts: int, kernel: Kernel | None = None
) -> Tensor:
    """The parameters of highest density that L-BFGS reaches from the ``starts`` best draws, ``(D,)``.

    It moves on the unconstrained reals, in units of the deviations of the draws, and maximizes the density of the constrained
    parameters, so no log-determinant is added. It returns the best draw if nothing better is found.

    Args:
        log_density: of parameters ``(n, D)`` within the prior, with gradients.
        prior: whose bounds hold.
        draws: of the posterior, ``(m, D)``.
        starts: number of starting points.
        kernel: over which the density is averaged first; None for none.
    """
    transform = prior.transform()
    with torch.no_grad():
        values = torch.nan_to_num(log_density(draws), nan=-torch.inf)
        best = values.topk(min(starts, len(draws))).indices
        u = transform.encode(draws.double()).z
    center, scale = u.mean(0), u.std(0).clamp(min=1e-12)
    low = ((u.amin(0) - center) / scale - _RANGE).numpy()
    high = ((u.amax(0) - center) / scale + _RANGE).numpy()

    def parameters(standard: Tensor) -> Tensor:
        return prior.clamp(transform.decode(center + scale * standard[None]).float())

    found, highest = draws[best[0]], -np.inf
    for index in best.tolist():
        averaged = log_density if kernel is None else kernel.around(draws[index], log_density)

        def objective(point: np.ndarray, averaged: LogDensity = averaged) -> tuple[float, np.ndarray]:
            standard = torch.from_numpy(point).requires_grad_()
            value = averaged(parameters(standard)).double()[0]
            if not bool(torch.isfinite(value)):
                return 1e300, np.zeros_like(point)
            (gradient,) = torch.autograd.grad(-value, standard)
            return -float(value.detach()), torch.nan_to_num(gradient).numpy()

        bounds = list(zip(low, high, strict=True))
        options = {"maxiter": _ITERATIONS, "ftol": _PRECISION}
        start = ((u[index] - center) / scale).numpy()
        with torch.enable_grad():
            result = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        if -result.fun > highest:
            found, highest = parameters(torch.from_numpy(result.x))[0].detach(), -float(result.fun)
    return found


class Kernel:
    """A normal kernel that averages out the narrow bumps of a density, a quarter as wide as the posterior around a point.

    Bounded parameters are moved as they are, and reflected at their bounds, so a density that is highest at a bound stays so; half-bounded ones
    and those that crowd at a bound are moved on the reals. There the kernel has the covariance of the fifth of the draws that is nearest to
    the point, enlarged by the factor by which that of the nearest fifth of a normal distribution is smaller than its own. So it follows
    correlations, and the width of the mode that it is in. Its points are quasi-random and symmetric, with the middle among them.

    Args:
        prior: whose bounds hold.
        draws: of the posterior, ``(m, D)``.
    """

    def __init__(self, prior: Prior, draws: Tensor) -> None:
        self.prior = prior
        self._flat = torch.isfinite(prior.low) & torch.isfinite(prior.high) & ~prior.skewed
        self._transform = prior.transform()
        width = draws.shape[1]
        uniform = torch.quasirandom.SobolEngine(width, scramble=True, seed=0).draw(_POINTS // 2, dtype=torch.float64)
        noise = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6))
        self._noise = torch.cat((torch.zeros(1, width, dtype=torch.float64), noise, -noise))
        self._places = self._coordinates(draws)
        self._whiten = torch.linalg.inv(_factor(self._places))
        quantile = chi2.ppf(_NEAR, width)
        self._enlarged = float((_NEAR / chi2.cdf(quantile, width + 2)) ** 0.5)

    def around(self, theta: Tensor, log_density: LogDensity) -> LogDensity:
        """The log of a density that is averaged over the kernel of a point ``(D,)``."""
        place = self._coordinates(theta[None])
        distances = ((self._places - place) @ self._whiten.mT).norm(dim=1)
        count = max(2 * len(theta), round(_NEAR * len(distances)))
        near = self._places[distances.topk(min(count, len(distances)), largest=False).indices]
        steps = _WIDTH * self._enlarged * self._noise @ _factor(near).mT

        def averaged(rows: Tensor) -> Tensor:
            points = self._parameters(self._coordinates(rows)[:, None] + steps)
            parts = [log_density(part) for part in points.flatten(0, 1).split(_ROWS)]
            return logmeanexp(torch.cat(parts).view(len(rows), len(steps)), 1)

        return averaged

    def _coordinates(self, theta: Tensor) -> Tensor:
        """Bounded parameters as they are, the others on the reals."""
        theta = theta.double()
        return torch.where(self._flat, theta, self._transform.encode(theta).z)

    def _parameters(self, places: Tensor) -> Tensor:
        low, high = self.prior.low.double(), self.prior.high.double()
        inside = torch.where(self._flat & (places < low), 2 * low - places, places)
        inside = torch.where(self._flat & (inside > high), 2 * high - inside, inside)
        on_reals = self._transform.decode(torch.where(self._flat, 0.0, inside))
        return self.prior.clamp(torch.where(self._flat, inside, on_reals).float())


def _factor(places: Tensor) -> Tensor:
    """A factor of the covariance of places ``(m, D)``, with some of each deviation added, so that it has an inverse."""
    deviations = places.std(0).clamp(min=1e-12)
    correlation = torch.cov((places / deviations).mT).reshape(places.shape[1], -1)
    return deviations[:, None] * torch.linalg.cholesky(correlation + 1e-6 * torch.eye(len(correlation)).double())
