"""Roots of monotone functions and of contractions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.errors import ConvergenceError
from pushforward.numerics.tracing import is_eager, is_recording

__all__ = ["contraction_root", "monotone_root"]


def monotone_root(
    function: Callable[[Tensor], tuple[Tensor, Tensor]],
    target: Tensor,
    low: Tensor,
    high: Tensor,
    *,
    start: Tensor | None = None,
    steps: int = 60,
    doublings: int = 40,
) -> Tensor:
    """Solve ``f(x) = target`` elementwise for an increasing f, with the gradient of the implicit function theorem.

    The bracket first doubles until it encloses the root, so a bracket that is too small costs steps but gives no wrong answer.
    A step is Newton's if that stays in the bracket and is at most half as long as the step before, and a bisection otherwise. An
    element that has converged does not change any more, so its digits do not depend on its neighbors. Where Python may read
    values, the search ends when all elements have converged.

    Args:
        function: x -> (f(x), f'(x)), elementwise; its own parameters receive gradients.
        target: any shape.
        low: start of the bracket, same shape.
        high: end of the bracket, same shape.
        start: first x, in the bracket; None for the middle.
        steps: most iterations; a bisection gains one bit.
        doublings: most doublings of the bracket; 0 if it is known to enclose the root.

    Returns:
        The root, infinite where the target is, twice differentiable in ``target`` and in the parameters of ``function``: dx/dy = 1/f'(x) and
        dx/dtheta = -(df/dtheta)/f'(x), with f' as ``function`` returns it.

    Example:
        >>> import torch
        >>> from pushforward.numerics import monotone_root
        >>> monotone_root(lambda x: (x**3, 3 * x**2), torch.tensor([8.0]), torch.tensor([0.0]), torch.tensor([5.0]))
        tensor([2.])
    """
    infinite, far = torch.isinf(target), target
    target = torch.where(infinite, 0.0, target)  # where f overflows, infinity minus infinity would be NaN
    with torch.no_grad():
        may_read = is_eager()
        for _ in range(doublings):
            below, above = function(low)[0] > target, function(high)[0] < target
            if may_read and not (below | above).any():
                break
            reach = 2 * (high - low)
            low, high = (
                torch.where(below, low - reach, torch.where(above, high, low)),
                torch.where(above, high + reach, torch.where(below, low, high)),
            )
        x = 0.5 * (low + high) if start is None else torch.minimum(torch.maximum(start, low), high)
        last, eps = high - low, torch.finfo(x.dtype).eps
        for _ in range(steps):
            value, slope = function(x)
            error = target - value
            step = error / slope
            low = torch.where(value <= target, x, low)
            high = torch.where(value >= target, x, high)
            newton = x + step
            # A few roundings of x or of the target; eps comes first, so that neither product overflows.
            converged = error.abs() <= 2 * eps * x.abs() * slope + 2 * eps * target.abs()
            converged &= torch.isfinite(slope)  # else f has overflowed
            converged |= high - low <= 2 * eps * x.abs()
            if may_read and converged.all():
                break
            fast = (newton > low) & (newton < high) & (2 * step.abs() <= last)
            following = torch.where(converged, x, torch.where(fast, newton, 0.5 * (low + high)))
            last, x = (following - x).abs(), following
    # One Newton step from the detached root with a detached slope has the first derivatives of the root, since its error is of
    # second order in the change of the root. A second such step has an error of third order, so it has the second derivatives
    # too. Its value is a rounding error, which is subtracted.
    x = x.detach()
    value, slope = function(x)
    slope = slope.detach().clamp(min=torch.finfo(slope.dtype).tiny)  # a root may be where f is flat
    step = (value - target) / slope
    # Where f is nearly flat, a rounding error of the target is a long step: it is left out, and has its derivatives still.
    rounding = (value - target).abs() <= 4 * eps * x.abs() * slope + 4 * eps * target.abs()
    long = step.abs() > high - low + math.sqrt(eps) * (1 + x.abs())
    x = x - torch.where(rounding & long & torch.isfinite(step), step - step.detach(), step)
    if not (is_eager() and not x.requires_grad):
        again = (function(x)[0] - target) / slope
        x = x - (again - again.detach())
    return torch.where(infinite, far, x)


@torch.no_grad()
def contraction_root(
    function: Callable[[Tensor], Tensor], target: Tensor, rate: float, *, memory: int = 5, compiled_steps: int = 24
) -> Tensor:
    """Solve ``x + g(x) = y`` for each row, where g is a contraction; no gradient.

    Anderson's acceleration of x <- y - g(x) (Walker and Ni 2011) with a safeguard: a step that does not reduce the row's
    residual by the factor ``rate`` is dropped, and the next step is a plain one, which does. Rows are independent. A row stops
    when all its coordinates have abs(x + g(x) - y) <= 4 eps (1 + abs y), or when rounding stops the progress of plain steps.

    Args:
        function: g, ``(*batch, D)`` to the same shape.
        target: y, ``(*batch, D)``.
        rate: Lipschitz constant of g in the Euclidean norm, below 1.
        memory: number of earlier steps that the acceleration uses.
        compiled_steps: number of steps under ``torch.compile`` and in a CUDA graph, which cannot stop early.

    Returns:
        x; infinite where y is infinite.

    Raises:
        ConvergenceError: if a row has a residual above 800 eps (1 + max abs y), 1e-4 in float32 and 2e-13 in float64.

    Example:
        >>> import torch
        >>> from pushforward.numerics import contraction_root
        >>> x = contraction_root(lambda x: 0.5 * x.sin(), torch.tensor([[1.0]]), rate=0.5)
        >>> (x + 0.5 * x.sin()).round(decimals=4)
        tensor([[1.]])
    """
    eps = torch.finfo(target.dtype).eps
    most = {torch.float64: 1e150, torch.float32: 1e37}.get(target.dtype, torch.finfo(target.dtype).max / 2)
    y = target.clamp(-most, most)
    scale = 1 + y.abs()

    def residual(x: Tensor) -> tuple[Tensor, Tensor]:
        r = y - x - function(x)
        return r, (r.abs() - 4 * eps * scale).clamp(min=0.0).double().norm(dim=-1)

    x = y
    r, size = residual(x)
    past_x = past_r = torch.zeros_like(y).unsqueeze(-2).expand(*y.shape[:-1], memory, -1)  # what each step changed
    ridge = 1e-12 * torch.eye(memory, dtype=torch.float64, device=y.device)
    plain = torch.ones_like(size, dtype=torch.bool)  # rows whose next step is a plain one
    done = size == 0
    limit = 2 * math.ceil(math.log(eps) / math.log(rate)) + 20
    recording = is_recording()
    for _ in range(compiled_steps if recording else limit):
        if not recording and bool(done.all()):
            break
        changes = past_r.double()
        gram = changes @ changes.mT
        unit = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp(min=1e-200)
        weights = torch.linalg.solve(gram / unit + ridge, changes @ r.double().unsqueeze(-1) / unit)
        back = (weights.to(y.dtype) * (past_x + past_r)).sum(-2)
        trial = torch.where(done.unsqueeze(-1), x, x + r - back)
        new_r, new_size = residual(trial)
        better = ((new_size <= rate * size) | (plain & (new_size < size))) & ~done
        keep = better.unsqueeze(-1)
        past_x = torch.where(keep.unsqueeze(-1), torch.cat((past_x[..., 1:, :], (trial - x).unsqueeze(-2)), -2), 0.0)
        past_r = torch.where(keep.unsqueeze(-1), torch.cat((past_r[..., 1:, :], (new_r - r).unsqueeze(-2)), -2), 0.0)
        x, r, size = torch.where(keep, trial, x), torch.where(keep, new_r, r), torch.where(better, new_size, size)
        done = done | (size == 0) | (plain & ~better)
        plain = ~better
    solved = (r.abs() <= 800 * eps * scale.amax(-1, keepdim=True)).all()
    message = "a residual transform was not inverted to its tolerance: are its weights finite?"
    if recording:
        torch._assert_async(solved, message)  # pyright: ignore[reportPrivateImportUsage]
    elif not bool(solved):
        raise ConvergenceError(message)
    return torch.where(torch.isinf(target), target, x)
