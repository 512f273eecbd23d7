"""The parameters of highest posterior density, by L-BFGS from the best draws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from pushforward.inference.priors import Prior

__all__ = ["highest_density"]

_ITERATIONS = 200
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
        result = minimize(
            objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _ITERATIONS}
        )
        if -result.fun > highest:
            found, highest = at(np.asarray(result.x))[0].detach(), -float(result.fun)
    return found
