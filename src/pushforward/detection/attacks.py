"""Inputs made to fool a score: fast gradient sign, projected gradient descent, and attackers who know of the gate."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.detection.two_sample import mmd_squared
from pushforward.errors import InputError
from pushforward.models import Model
from pushforward.numerics.checks import check_integer, check_positive
from pushforward.transforms import UniformDequantize, VariationalDequantize

__all__ = ["fgsm", "gate_aware_objective", "log_likelihood_objective", "pgd"]

Objective = Callable[[Tensor], Tensor]
"""Rows ``(n, *shape)`` to what the attacker wants to raise: ``(n,)``, or a scalar of the batch; differentiable."""


def fgsm(objective: Objective, x: Tensor, budget: float, *, levels: int = 256) -> Tensor:
    """x + budget sign(gradient), within the range of pixels (Goodfellow et al. 2015, sec. 4): :func:`pgd` of one step.

    Args:
        objective: what to raise.
        x: images, see :func:`pgd`.
        budget: in gray levels.
        levels: number of gray levels.

    Raises:
        InputError: for NaN, or an objective without a gradient.
        ConfigError: for a budget or levels that make no sense.
    """
    return pgd(objective, x, budget, steps=1, step=budget, random_start=False, keep_best=False, levels=levels)


def pgd(
    objective: Objective,
    x: Tensor,
    budget: float,
    *,
    steps: int = 20,
    step: float | None = None,
    random_start: bool = True,
    keep_best: bool = True,
    levels: int = 256,
    seed: int = 0,
) -> Tensor:
    """Raise an objective within a box of ``budget`` gray levels around each pixel (Madry et al. 2018, sec. 2.1).

    Steps go along the sign of the gradient, shrink to nothing, and are projected onto the box and the range of pixels.
    Images of an integer type move as real numbers, but what is attacked is always their rounding, with the gradient of the
    identity. A density with spikes, as that of black pixels, is easily left and hard to find again, so the best point that
    was met, ``x`` among them, is what is returned.

    Args:
        objective: what to raise: ``log_likelihood_objective(model)`` to hide an anomaly, its negative to make a normal input one, or any
            differentiable score.
        x: images ``(n, *shape)``: integers 0, ..., levels - 1, or real numbers from 0 to 1.
        budget: largest change of a pixel, in gray levels.
        steps: how many.
        step: length of the first, in gray levels; by default 4 budget / steps, enough to cross the box.
        random_start: begin at a random point of the box.
        keep_best: return the best point rather than the last: of each row, or of the batch where the objective is a scalar.
        levels: number of gray levels.
        seed: of the start.

    Returns:
        Images of the type of ``x``, no pixel further from ``x`` than the budget.

    Raises:
        InputError: for NaN, pixels out of range, or an objective whose gradient is zero or missing.
        ConfigError: for a budget, a step or levels that make no sense.

    Example:
        >>> import torch
        >>> from pushforward.detection import pgd
        >>> pixels = torch.tensor([[10, 250]], dtype=torch.uint8)
        >>> pgd(lambda x: x.sum(1), pixels, budget=8)
        tensor([[ 18, 255]], dtype=torch.uint8)
    """
    if not isinstance(x, Tensor) or x.dim() < 2 or x.is_complex():
        raise InputError("pgd attacks a tensor of real numbers, (n, *shape), one row an input.")
    whole = not x.is_floating_point()
    check_integer("levels", levels)
    top = float(levels - 1) if whole else 1.0
    unit = 1.0 if whole else 1.0 / max(levels - 1, 1)
    radius = unit * check_positive("budget", budget)
    length = 4 * radius / check_integer("steps", steps) if step is None else unit * check_positive("step", step)
    start = x.detach().to(torch.get_default_dtype() if whole else x.dtype)
    if start.numel() and not bool(((start >= 0) & (start <= top)).all()):
        raise InputError(f"pixels must lie between 0 and {top:g}, {'integers' if whole else 'real numbers'}.")
    # A rounded pixel keeps to a budget that is not whole only within the whole numbers inside.
    reach = float(int(radius)) if whole else radius
    low, high = (start - reach).clamp(min=0), (start + reach).clamp(max=top)
    y = point = best = start
    with torch.no_grad():
        highest = torch.nan_to_num(objective(start), nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    if random_start:
        draw = torch.Generator(x.device).manual_seed(seed)
        noise = torch.rand(start.shape, generator=draw, dtype=start.dtype, device=x.device)
        y = low + noise * (high - low)
    for k in range(steps + 1):
        point = (y.round() if whole else y).detach().requires_grad_()
        with torch.enable_grad():
            value = objective(point)
            total = value.sum()
        better = (value > highest).detach()
        mask = better.reshape(-1, *(1,) * (start.dim() - 1))
        best, highest = torch.where(mask, point.detach(), best), torch.where(better, value, highest).detach()
        if k < steps:
            gradient = _gradient(total, point)
            if k == 0 and start.numel() and not gradient.any():
                raise InputError(
                    "the objective's gradient is zero everywhere: does it round its input, as dequantization does? "
                    "log_likelihood_objective(model) goes around that."
                )
            y = torch.minimum(torch.maximum(y + length * (1 - k / steps) * gradient.sign(), low), high)
    return (best if keep_best else point).detach().to(x.dtype)


def log_likelihood_objective(model: Model) -> Objective:
    """The log-likelihood of a model as an objective that has a gradient, also where the model dequantizes integers.

    Rounding has no gradient. For such models the value is that of ``model.evaluate`` at the nearest integers, with the very
    noise that scoring would draw for them, and the gradient is that of the density there, which goes on between integers
    as if the noise stayed. Noise is drawn anew for each new image, so an attack climbs the mean over it.

    Args:
        model: whose gradient with respect to real inputs exists.

    Returns:
        A function of rows ``(n, *shape)`` to ``(n,)``.
    """
    first = model.chain[0]
    if not isinstance(first, (UniformDequantize, VariationalDequantize)):
        return lambda x: model.evaluate(x).value

    def between(x: Tensor) -> Tensor:
        x = x.to(model.dtype)
        with torch.no_grad():
            whole = x.round()
            z, total, *_ = first.encode(whole)
            levels = torch.as_tensor(first.levels, dtype=x.dtype, device=x.device)
        step = model.chain[1:].encode(z + (x - whole) / levels)
        return total + step.contribution + model.base.log_prob(step.z)

    return between


def gate_aware_objective(
    objective: Objective, features: Objective, reference: Tensor, bandwidth: float, weight: float
) -> Objective:
    """An objective of an attacker who also hides the batch from a two-sample test: mean objective - weight MMD^2.

    Args:
        objective: what to raise for each row.
        features: of the gate, differentiable.
        reference: features of rows that the attacker knows, ``(N, d)``, such as the gate's own.
        bandwidth: of the Gaussian kernel.
        weight: of MMD^2, in units of the objective; MMD^2 lies between 0 and 2.

    Returns:
        A function of rows ``(n, *shape)`` to a scalar; the rows of a batch are attacked together.

    Raises:
        ConfigError: for a bandwidth or a weight that is not positive.
    """
    bandwidth, weight = check_positive("bandwidth", bandwidth), check_positive("weight", weight)

    def both(x: Tensor) -> Tensor:
        found = features(x)
        return objective(x).mean() - weight * mmd_squared(found, reference.to(found), bandwidth)

    return both


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    if not value.requires_grad:
        raise InputError("the objective carries no gradient to its input: is it computed without gradients?")
    (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else torch.nan_to_num(gradient)
