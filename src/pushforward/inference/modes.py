"""Modes of a log-density from several starting points, with their Laplace approximations.

They start the flow at the right location and scale, and they reveal modes that a fitted flow lacks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from pushforward.errors import ConfigError, InputError
from pushforward.inference.real_numbers import as_numbers
from pushforward.inference.targets import POINT_ERRORS, Target
from pushforward.numerics.checks import check_integer

__all__ = ["Mode", "box_points", "find_modes", "laplace_draws", "mixture_log_prob", "start_points"]

_HESSIAN_STEP, _LARGEST_STEP, _FITTING_STEP = 1e-4, 0.1, 0.01
"""First steps of the Hessian, in units of the location. Steps above the second number, in units of the width that they find, are
replaced by the third."""
_WIDEST, _NARROWEST = 1e3, 1e-8
"""Bounds on the standard deviations of a Laplace approximation, in units of the spread of the starting points."""
_ROUNDS = 8
"""Most runs of L-BFGS from one starting point, each with units that the one before found."""
_ROUNDED = 1e-9
_DOUBLINGS = 100
"""Most doublings of a distance in the search for the width of a target in large units."""


_BETWEEN, _DIP = 32, 0.1
"""Points between two maxima, and the fall of the log-density there, nats, up to which the two are one mode."""


@dataclass(frozen=True)
class Mode:
    """A local maximum of a log-density, and the normal distribution with its curvature.

    Attributes:
        location: ``(D,)``, unconstrained.
        log_density: there, nats.
        factor: ``(D, D)``, with factor factor^T the covariance of the normal distribution.
        log_mass: log of the integral of the Laplace approximation, log p + D / 2 log 2 pi + log det factor.

    Example:
        >>> import torch
        >>> from pushforward.inference import Target, find_modes
        >>> target = Target(lambda v: -0.5 * (v - 1).square().sum(-1), 2)
        >>> find_modes(target, torch.zeros(1, 2))[0].location.round(decimals=4)
        tensor([1., 1.], dtype=torch.float64)
    """

    location: Tensor
    log_density: float
    factor: Tensor
    log_mass: float


def find_modes(target: Target, starts: Tensor, *, iterations: int = 200) -> list[Mode]:
    """Distinct local maxima that L-BFGS reaches from each starting point, the largest Laplace mass first.

    Where the log-density is flat L-BFGS stops at once, and at an edge of the support it stops on a slope. So two ends with no
    dip of more than 0.1 nats on the straight line between them count as one, the higher.

    Args:
        target: the log-density.
        starts: ``(k, D)``; points where the log-density is not finite are skipped.
        iterations: most iterations of one run of L-BFGS. A point has at most eight runs, each in units that the one before found.

    Raises:
        ConfigError: for something that is no target, points of another shape, or a number of iterations that is not positive.
        InputError: if the log-density is not finite at any starting point.

    Example:
        >>> import torch
        >>> from pushforward.inference import Target, find_modes
        >>> target = Target(lambda v: torch.logaddexp(-0.5 * (v[:, 0] - 4) ** 2, -0.5 * (v[:, 0] + 4) ** 2), 1)
        >>> modes = find_modes(target, torch.tensor([[-3.0], [-2.0], [3.0]]))
        >>> sorted(round(mode.location.item()) for mode in modes)
        [-4, 4]
    """
    if not isinstance(target, Target):
        raise ConfigError(f"target must be a Target(log_density, features); got {type(target).__name__}.")
    check_integer("iterations", iterations)
    starts = start_points(starts, target.features)
    with torch.no_grad():
        finite = torch.isfinite(target(starts))
    if not bool(finite.any()):
        raise InputError(
            f"the log-density is not finite at any of {len(starts)} starting points around "
            f"{starts.double().mean(0).tolist()[:4]}: give starting points inside its support (starts=), or state the "
            "constraints of the parameters (parameters=)."
        )
    spread = float(starts.double().std(0).max()) if len(starts) > 1 else 1.0
    spread = spread or 1.0
    modes: list[Mode] = []
    for start in starts[finite]:
        found = _climb(target, start, iterations, spread)
        if found is None or any(_same(mode, found) for mode in modes):
            continue
        modes = _with(target, modes, _laplace(target, found, spread))
    if not modes:
        raise InputError(
            "the log-density grows without bound from every starting point, so it has no mode to start at: check its sign, and that it falls far from the data."
        )
    return sorted(modes, key=lambda mode: -mode.log_mass)


def start_points(starts: Any, width: int) -> Tensor:
    """Starting points ``(k, width)``, float64.

    Raises:
        ConfigError: for another shape.
        InputError: for something that is not real numbers.
    """
    points = starts.detach() if isinstance(starts, Tensor) else as_numbers(starts, "starts")
    if points.dim() != 2 or points.shape[1] != width or not len(points):
        raise ConfigError(f"starts must have the shape (k, {width}), with at least one row; got {tuple(points.shape)}.")
    return points.double()


def box_points(count: int, width: int, spread: float, generator: torch.Generator) -> Tensor:
    """Points that fill the box [-spread, spread]^D evenly (a scrambled Sobol sequence), ``(count, D)``, float64."""
    if count == 0:
        return torch.zeros(0, width, dtype=torch.float64)
    seed = int(torch.randint(2**31, (), generator=generator))
    return spread * (
        2 * torch.quasirandom.SobolEngine(width, scramble=True, seed=seed).draw(count, dtype=torch.float64) - 1
    )


def laplace_draws(modes: Sequence[Mode], count: int, generator: torch.Generator, *, inflate: float = 1.0) -> Tensor:
    """Draws from the mixture of the Laplace approximations, weighted by their masses, ``(count, D)``, float64.

    Args:
        modes: at least one.
        count: number of draws.
        generator: of the random numbers, on the CPU.
        inflate: factor of the standard deviations.
    """
    masses = torch.tensor([mode.log_mass for mode in modes], dtype=torch.float64).softmax(0)
    chosen = torch.multinomial(masses, count, replacement=True, generator=generator)
    noise = torch.randn(count, len(modes[0].location), dtype=torch.float64, generator=generator)
    factors = torch.stack([mode.factor for mode in modes])[chosen]
    return torch.stack([mode.location for mode in modes])[chosen] + inflate * (factors @ noise[..., None])[..., 0]


def mixture_log_prob(modes: Sequence[Mode], u: Tensor, *, inflate: float = 1.0) -> Tensor:
    """Log-density of :func:`laplace_draws`, ``(n, D)`` to ``(n,)``."""
    masses = torch.tensor([mode.log_mass for mode in modes], dtype=torch.float64).log_softmax(0)
    parts = []
    for mode, weight in zip(modes, masses, strict=True):
        scale = inflate * mode.factor
        parts.append(
            torch.distributions.MultivariateNormal(mode.location, scale_tril=_lower(scale)).log_prob(u) + weight
        )
    return torch.logsumexp(torch.stack(parts), 0)


def _climb(target: Target, start: Tensor, iterations: int, spread: float) -> Tensor | None:
    """The local maximum above a point; None if the log-density has none there."""
    device, units = start.device, np.ones(start.numel())

    def objective(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = target.value_and_gradient(torch.from_numpy(units * x)[None].to(device))
        if not math.isfinite(float(value)):
            return 1e300, np.zeros_like(x)
        return -float(value), -units * gradient[0].cpu().numpy()

    point = start.double().cpu().numpy()
    for _ in range(_ROUNDS):
        result = minimize(
            objective, point / units, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "maxcor": 20}
        )
        if not np.isfinite(result.x).all() or result.fun >= 1e300:
            return None
        point = units * np.asarray(result.x)
        found = torch.from_numpy(point).to(device)
        gradient = -result.jac / units
        further = _further(target, found, _direction(gradient)[None], spread)
        if further is None:  # the gradient may be that of narrow coordinates, beside which others look flat
            further = _further(target, found, np.diag(np.sign(np.nan_to_num(gradient))), spread)
        if further is None:
            break
        point, distances = further
        if not np.isfinite(distances).all():
            return None
        units = np.maximum(units, distances)
    return torch.from_numpy(point)


def _direction(gradient: np.ndarray) -> np.ndarray:
    """A gradient with length 1; 0 if it has no direction."""
    norm = float(np.linalg.norm(gradient))
    return gradient / norm if 0 < norm < math.inf else np.zeros_like(gradient)


def _further(
    target: Target, point: Tensor, directions: np.ndarray, spread: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """A point uphill, at least 0.1 nats, and how far from the first it is in each coordinate; None at a maximum.

    L-BFGS stops where the gradient is below 1e-5, whatever the units: a target of width 1e6 looks flat to it. The distance of a
    target that rises without an end is inf.

    Args:
        target: the log-density.
        point: ``(D,)``.
        directions: ``(k, D)``, each searched by itself; the point is the best of them and their sum.
        spread: of the starting points.
    """
    rays = torch.from_numpy(directions).to(point.device)
    best = torch.zeros(len(rays), dtype=torch.float64, device=point.device)
    steps = (_ROUNDED * (rays.abs() @ point.abs())).clamp(min=0.01 * spread)  # a smaller step would round to none
    distances = torch.zeros_like(best)
    rising = rays.abs().sum(1) > 0
    with torch.no_grad():
        value = target(point[None]).double()
        for _ in range(_DOUBLINGS):
            if not bool(rising.any()):
                break
            index = rising.nonzero()[:, 0]
            gains = target(point + steps[index, None] * rays[index]).double() - value
            better = gains > best[index]
            best[index[better]], distances[index[better]] = gains[better], steps[index[better]]
            rising[index[~better]] = False
            steps = 2 * steps
        distances[rising] = math.inf
        distances[best <= 0.1] = 0.0
        moves = distances[:, None] * rays
        if not bool((distances > 0).any()):
            return None
        if bool(torch.isinf(distances).any()):
            return point.cpu().numpy(), np.full(len(point), math.inf)
        ends = point + torch.cat((moves.sum(0, keepdim=True), moves[best.argmax()][None]))
        end = ends[torch.nan_to_num(target(ends).double(), nan=-math.inf).argmax()]
    return end.cpu().numpy(), moves.abs().sum(0).cpu().numpy()


def _laplace(target: Target, location: Tensor, spread: float) -> Mode:
    """The Laplace approximation at a point, with the Hessian from differences of gradients."""
    count = len(location)
    hessian = torch.nan_to_num(_hessian(target, location, spread))
    values, axes = torch.linalg.eigh(hessian)
    curved = values > (_WIDEST * spread) ** -2  # other directions are flat, or no maximum
    deviations = torch.where(curved, values.clamp(min=1e-300, max=(_NARROWEST * spread) ** -2).rsqrt(), spread)
    with torch.no_grad():
        log_density = float(target(location[None]))
        for index in (~curved).nonzero()[:, 0].tolist():
            deviations[index] = _width(target, location, axes[:, index], log_density, spread)
    log_mass = log_density + count / 2 * math.log(2 * math.pi) + float(deviations.log().sum())
    return Mode(location, log_density, axes * deviations, log_mass)


def _hessian(target: Target, location: Tensor, spread: float) -> Tensor:
    """The negative Hessian of a log-density, ``(D, D)``, with steps that are small beside the widths of the target."""
    count = len(location)
    steps = _HESSIAN_STEP * location.abs().clamp(min=1e-2 * spread)
    smallest = torch.finfo(torch.float64).eps ** 0.5 * location.abs()
    while True:
        points = torch.cat((location + torch.diag(steps), location - torch.diag(steps)))
        _, gradients = target.value_and_gradient(points)
        gradients = gradients.cpu()
        hessian = (gradients[:count] - gradients[count:]) / (2 * steps[:, None].cpu())
        curvature = -hessian.diagonal().to(steps)
        wide = (steps > smallest) & (
            _LARGEST_STEP * torch.rsqrt(curvature) < steps
        )  # no, if the curvature is not positive
        if not bool(wide.any()):
            return -(hessian + hessian.mT) / 2
        fitting = torch.maximum(_FITTING_STEP * torch.rsqrt(curvature), smallest)
        steps = torch.where(wide, torch.minimum(fitting, steps / 2), steps)


def _width(target: Target, location: Tensor, axis: Tensor, log_density: float, spread: float) -> float:
    """The distance at which the log-density falls by half a nat, if it is beyond the widest deviation; else the spread.

    The curvature of a wide target is below the rounding of its gradients; its values are not. The last doubling goes beyond that
    distance by a factor of at most 2, and a parabola says by which.
    """
    distance = _WIDEST * spread
    for number in range(_DOUBLINGS):
        falls = log_density - target(torch.stack((location - distance * axis, location + distance * axis)))
        if bool((falls > 0.5).all()):
            return distance / max(1.0, min(2.0, math.sqrt(2 * float(falls.double().mean())))) if number else spread
        if bool((falls < -0.5).any()):
            return spread  # it rises: this is no maximum
        distance *= 2
    return spread


def _same(mode: Mode, found: Tensor) -> bool:
    """Whether a point is the mode, to a tenth of its standard deviation in every direction."""
    offset = torch.linalg.lstsq(mode.factor, (found - mode.location)[:, None]).solution
    return bool(offset.norm() < 0.1 * math.sqrt(len(found)) + 1e-3)


def _with(target: Target, modes: list[Mode], mode: Mode) -> list[Mode]:
    """The modes and a further one, of which those that are joined with it leave only the highest."""
    joined = [_joined(target, other, mode) for other in modes]
    apart = [other for other, same in zip(modes, joined, strict=True) if not same]
    together = [other for other, same in zip(modes, joined, strict=True) if same]
    return [*apart, max((*together, mode), key=lambda each: each.log_density)]


def _joined(target: Target, one: Mode, other: Mode) -> bool:
    """Whether the log-density on the line between two points nowhere falls by more than 0.1 nats below the lower of them."""
    steps = torch.linspace(0, 1, _BETWEEN + 2, dtype=torch.float64, device=one.location.device)[1:-1, None]
    try:
        with torch.no_grad():
            values = target(one.location + steps * (other.location - one.location))
    except POINT_ERRORS:  # it may not be defined between its modes
        return False
    return bool((values >= min(one.log_density, other.log_density) - _DIP).all())


def _lower(factor: Tensor) -> Tensor:
    """The lower triangular factor of the same covariance."""
    upper = torch.linalg.qr(factor.mT).R
    return (upper * torch.diagonal(upper).sign()[:, None]).mT
