"""The parameters of highest posterior density, by L-BFGS from the best draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from pushforward.inference.priors import Prior
from pushforward.numerics import logmeanexp

__all__ = ["highest_density", "smoothed"]

_ITERATIONS = 200
_PRECISION = 1e-6
"""Relative change of the log-density at which a climb ends, since networks compute in float32."""
_ROWS = 16_384
"""Rows whose density is computed at once."""
_WIDTH = 0.25
"""Deviation of the kernel of :func:`smoothed`, in deviations of the draws."""
_POINTS = 32
"""Points of the kernel."""
_RANGE = 3.0
"""How far beyond the draws the search goes, in their standard deviations on the reals."""


def highest_density(log_density: Callable[[Tensor], Tensor], prior: Prior, draws: Tensor, starts: int) -> Tensor:
    """The parameters of highest density that L-BFGS reaches from the ``starts`` best draws, ``(D,)``.

    It moves on the unconstrained reals, in units of the deviations of the draws, and maximizes the density of the constrained
    parameters, so no log-determinant is added. It returns the best draw if nothing better is found.

    Args:
        log_density: of parameters ``(n, D)`` within the prior, with gradients.
        prior: whose bounds hold.
        draws: of the posterior, ``(m, D)``.
        starts: number of starting points.
    """
    transform = prior.transform()
    with torch.no_grad():
        values = torch.nan_to_num(log_density(draws), nan=-torch.inf)
        best = values.topk(min(starts, len(draws))).indices
        u = transform.encode(draws.double()).z
    center, scale = u.mean(0), u.std(0).clamp(min=1e-12)
    low = ((u.amin(0) - center) / scale - _RANGE).numpy()
    high = ((u.amax(0) - center) / scale + _RANGE).numpy()

    def at(point: np.ndarray) -> Tensor:
        return prior.clamp(transform.decode(center + scale * torch.from_numpy(point)[None]).float())

    def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
        standard = torch.from_numpy(point).requires_grad_()
        with torch.enable_grad():
            theta = prior.clamp(transform.decode(center + scale * standard[None]).float())
            value = log_density(theta).double()[0]
            if not bool(torch.isfinite(value)):
                return 1e300, np.zeros_like(point)
            (gradient,) = torch.autograd.grad(-value, standard)
        return -float(value.detach()), torch.nan_to_num(gradient).numpy()

    found, highest = draws[best[0]], float(values[best[0]])
    for start in ((u[best] - center) / scale).numpy():
        bounds = list(zip(low, high, strict=True))
        options = {"maxiter": _ITERATIONS, "ftol": _PRECISION}
        result = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        if -result.fun > highest:
            found, highest = at(np.asarray(result.x))[0].detach(), -float(result.fun)
    return found


def smoothed(log_density: Callable[[Tensor], Tensor], prior: Prior, draws: Tensor) -> Callable[[Tensor], Tensor]:
    """The log of a density that is averaged over a normal kernel, of a quarter of the deviations of draws, ``(n, D)`` to ``(n,)``.

    Points beyond a bound of the prior are reflected, so a density that is highest at a bound stays so. The points of the kernel
    are quasi-random, the same everywhere and symmetric, so the result is as smooth as the density.

    Args:
        log_density: of parameters ``(n, D)`` within the prior.
        prior: whose bounds hold.
        draws: ``(m, D)``.
    """
    width = draws.shape[1]
    uniform = torch.quasirandom.SobolEngine(width, scramble=True, seed=0).draw(_POINTS // 2, dtype=torch.float64)
    noise = torch.special.ndtri(uniform.clamp(1e-6, 1 - 1e-6)).float()
    steps = _WIDTH * draws.std(0) * torch.cat((noise, -noise))
    low, high = prior.low.to(draws), prior.high.to(draws)

    def averaged(theta: Tensor) -> Tensor:
        points = theta[:, None] + steps
        points = torch.where(points < low, 2 * low - points, points)
        points = torch.where(points > high, 2 * high - points, points)
        rows = prior.clamp(points.reshape(-1, width))
        parts = [log_density(part) for part in rows.split(_ROWS)]
        return logmeanexp(torch.cat(parts).view(len(theta), _POINTS), 1)

    return averaged
