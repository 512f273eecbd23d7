"""Two solvers of ordinary differential equations: Runge-Kutta 4 with equal steps, and Dormand-Prince 5(4) with steps of each row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pushforward.errors import ConvergenceError

__all__ = ["solve_adaptive", "solve_fixed"]

Field = Callable[[Tensor | float, Tensor], Tensor]
"""dy/ds at (s, y): s a number, or ``(rows, 1)``; y ``(rows, width)``."""

# Dormand and Prince (1980): nodes, stages, weights of order 5, and their differences to the weights of order 4.
_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
_E = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def solve_fixed(field: Field, y: Tensor, steps: int, *, recompute: bool = False) -> Tensor:
    """y(1) from y(0) by the classical Runge-Kutta method of order 4 with equal steps.

    Args:
        field: dy/ds.
        y: ``(rows, width)``.
        steps: number of steps.
        recompute: store only the state at each step for the gradient, and compute the rest again.
    """
    h = 1 / steps

    def step(s: float, y: Tensor) -> Tensor:
        k1 = field(s, y)
        k2 = field(s + h / 2, y + h / 2 * k1)
        k3 = field(s + h / 2, y + h / 2 * k2)
        k4 = field(s + h, y + h * k3)
        return y + h / 6 * (k1 + 2 * (k2 + k3) + k4)

    for k in range(steps):
        y = _checkpointed(step, k * h, y) if recompute and torch.is_grad_enabled() else step(k * h, y)
    return y


def solve_adaptive(
    field: Field, y: Tensor, *, atol: float, rtol: float, max_steps: int = 1000, recompute: bool = False
) -> Tensor:
    """y(1) from y(0) by Dormand and Prince's method of order 5 with an error estimate of order 4 (Hairer et al., II.4).

    Every row has its own steps: in each, the largest abs(error) / (atol + rtol abs(y)) over its coordinates is at most 1.
    So the result of a row does not depend on the other rows. If a gradient is needed, the steps are chosen first, without
    a graph, and then repeated with one: it is the gradient of these steps (discretize, then optimize), and rejected steps
    take no memory.

    Args:
        field: dy/ds.
        y: ``(rows, width)``.
        atol: absolute tolerance, raised to 10 rounding units if it is smaller.
        rtol: relative tolerance, raised to 10 rounding units if it is smaller.
        max_steps: largest number of accepted and rejected steps.
        recompute: as in :func:`solve_fixed`.

    Raises:
        ConvergenceError: if a row needs more steps.
    """
    with torch.no_grad():
        steps, end = _find_steps(field, y, atol, rtol, max_steps)
    if not torch.is_grad_enabled():
        return end

    def step(s: Tensor, h: Tensor, y: Tensor) -> Tensor:
        return y + h * sum(b * k for b, k in zip(_B, _stages(field, s, h, y, field(s, y)), strict=True) if b)

    for s, h in steps:
        y = _checkpointed(step, s, h, y) if recompute else step(s, h, y)
    return y


def _find_steps(
    field: Field, y: Tensor, atol: float, rtol: float, max_steps: int
) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
    """Start and length of each accepted step, ``(rows, 1)`` with length 0 where a row took none, and y(1)."""
    floor = 10 * torch.finfo(y.dtype).eps
    atol, rtol = max(atol, floor), max(rtol, floor)
    s = torch.zeros_like(y[:, :1])
    h = torch.full_like(s, 0.05)
    first = field(s, y)
    steps: list[tuple[Tensor, Tensor]] = []
    for _ in range(max_steps):
        if bool((s >= 1).all()):
            return steps, y
        last = h >= 1 - s
        h = torch.where(last, 1 - s, h)
        stages = _stages(field, s, h, y, first)
        new = y + h * sum(b * k for b, k in zip(_B, stages, strict=True) if b)
        end = field(s + h, new)
        error = h * sum(e * k for e, k in zip(_E, [*stages, end], strict=True) if e)
        ratio = (error.abs() / (atol + rtol * torch.maximum(y.abs(), new.abs()))).amax(-1, keepdim=True)
        ratio = torch.where(torch.isfinite(ratio), ratio, 1e10)
        good = (ratio <= 1) & (s < 1)
        steps.append((s, torch.where(good, h, 0.0)))
        s = torch.where(good, torch.where(last, 1.0, s + h), s)
        y, first = torch.where(good, new, y), torch.where(good, end, first)
        h = h * (0.9 * ratio.clamp(min=1e-10) ** -0.2).clamp(0.2, 5.0)
        if bool((~good & (s < 1) & (h < 1e-12)).any()):  # no step length is accepted
            break
    raise ConvergenceError(
        f"the ODE solver did not reach atol={atol:.3g} and rtol={rtol:.3g} in {max_steps} steps: raise the tolerances, use "
        "float64, or use solver='rk4'."
    )


def _stages(field: Field, s: Tensor, h: Tensor, y: Tensor, first: Tensor) -> list[Tensor]:
    stages = [first]
    for c, row in zip(_C[1:], _A[1:], strict=True):
        stages.append(field(s + c * h, y + h * sum(a * k for a, k in zip(row, stages, strict=True))))
    return stages


def _checkpointed(step: Callable[..., Tensor], *args: Tensor | float) -> Tensor:
    return checkpoint(step, *args, use_reentrant=False, preserve_rng_state=False)  # pyright: ignore[reportReturnType]
