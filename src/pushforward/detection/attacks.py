"""Adversarial attacks on a score: fast gradient sign method, projected gradient descent, and gate-aware attacks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pushforward.detection.two_sample import mmd_squared
from pushforward.errors import InputError
from pushforward.models import Model
from pushforward.numerics.checks import check_integer, check_positive, check_seed
from pushforward.transforms import UniformDequantize, VariationalDequantize

__all__ = ["fgsm", "gate_aware_objective", "log_likelihood_objective", "pgd"]

Objective = Callable[[Tensor], Tensor]
"""Differentiable function of rows ``(n, *shape)`` that the attack maximizes: ``(n,)``, or a scalar for the batch."""


def fgsm(objective: Objective, x: Tensor, budget: float, *, levels: int = 256) -> Tensor:
    """Fast gradient sign method: x + budget sign(gradient), clipped to the range of pixels (Goodfellow et al. 2015, sec. 4).

    This is :func:`pgd` with one step.

    Args:
        objective: function to maximize.
        x: images, see :func:`pgd`.
        budget: change of each pixel, in gray levels.
        levels: number of gray levels.

    Raises:
        InputError: for NaN, or an objective without a gradient.
        ConfigError: for an invalid budget or number of levels.

    Example:
        >>> import torch
        >>> from pushforward.detection import fgsm
        >>> image = torch.full((1, 1, 2, 2), 100)
        >>> fgsm(lambda x: x.flatten(1).sum(1), image, budget=4).unique()  # every pixel is raised by 4 gray levels
        tensor([104])
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
    """Projected gradient descent: maximize an objective with a change of at most ``budget`` gray levels for each pixel (Madry et
    al. 2018, sec. 2.1).

    Each step follows the sign of the gradient and is projected onto the allowed changes and the range of pixels. The step
    length decreases linearly to 0. For images of an integer type the iterates are real numbers, but the objective is
    evaluated at their rounded values, and rounding has the gradient of the identity. The iterates easily leave a narrow peak
    of a density, such as that of black pixels, so the best point found (``x`` included) is returned.

    Args:
        objective: function to maximize: ``log_likelihood_objective(model)`` to hide an anomaly, its negative to make a normal
            input look anomalous, or any differentiable score.
        x: images ``(n, *shape)``: integers 0, ..., levels - 1, or real numbers from 0 to 1.
        budget: largest change of a pixel, in gray levels.
        steps: number of steps.
        step: length of the first step, in gray levels; the default is 4 budget / steps, enough to cross the allowed range.
        random_start: whether to start at a random point within the budget.
        keep_best: whether to return the best point instead of the last, for each row, or for the batch if the objective is a
            scalar.
        levels: number of gray levels.
        seed: seed of the random start, any integer.

    Returns:
        Images of the dtype of ``x``, with no pixel changed by more than the budget.

    Raises:
        InputError: for NaN, pixels out of range, or an objective whose gradient is zero or missing.
        ConfigError: for an invalid budget, step, seed, or number of steps or levels.

    Example:
        >>> import torch
        >>> from pushforward.detection import pgd
        >>> pixels = torch.tensor([[10, 250]], dtype=torch.uint8)
        >>> pgd(lambda x: x.sum(1), pixels, budget=8)
        tensor([[ 18, 255]], dtype=torch.uint8)
    """
    if not isinstance(x, Tensor) or x.dim() < 2 or x.is_complex():
        raise InputError("pgd needs a tensor of real numbers of shape (n, *shape), one row per input.")
    whole = not x.is_floating_point()
    check_integer("levels", levels)
    if x.dtype == torch.bool or (whole and levels - 1 > torch.iinfo(x.dtype).max):
        raise InputError(
            f"{x.dtype} cannot hold {levels} gray levels: give images of a wider integer type, or set levels."
        )
    top = float(levels - 1) if whole else 1.0
    unit = 1.0 if whole else 1.0 / max(levels - 1, 1)
    radius, steps = unit * check_positive("budget", budget), check_integer("steps", steps)
    length = 4 * radius / steps if step is None else unit * check_positive("step", step)
    start = x.detach().to(torch.get_default_dtype() if whole else x.dtype)
    if start.numel() and not bool(((start >= 0) & (start <= top)).all()):
        raise InputError(f"pixels must lie between 0 and {top:g}, {'integers' if whole else 'real numbers'}.")
    # Rounded pixels respect a fractional budget only if it is rounded down.
    reach = float(int(radius)) if whole else radius
    low, high = (start - reach).clamp(min=0), (start + reach).clamp(max=top)
    y = point = best = start
    with torch.no_grad():
        highest = torch.nan_to_num(objective(start), nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    if random_start:
        draw = torch.Generator(x.device).manual_seed(check_seed(seed))
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
                    "the objective's gradient is zero everywhere, as for a function that rounds its input: use "
                    "log_likelihood_objective(model) for a model with dequantization."
                )
            y = torch.minimum(torch.maximum(y + length * (1 - k / steps) * gradient.sign(), low), high)
    return (best if keep_best else point).detach().to(x.dtype)


def log_likelihood_objective(model: Model) -> Objective:
    """The log-likelihood of a model as an attack objective with a gradient, even if the model dequantizes integers.

    Rounding has no useful gradient. For a model with dequantization the value is that of ``model.evaluate`` at the nearest
    integers, with the same noise as in scoring, and the gradient is that of the density with this noise held fixed. Each
    new image gets new noise, so an attack maximizes the mean over the noise.

    Args:
        model: model that is differentiable with respect to real inputs.

    Returns:
        A function from rows ``(n, *shape)`` to ``(n,)``.

    Example:
        >>> import torch, pushforward as pf
        >>> from pushforward.detection import log_likelihood_objective, pgd
        >>> glow = pf.models.Glow(shape=(1, 4, 4), scales=1, layers=1, hidden=(4, 4))
        >>> images = torch.randint(256, (2, 1, 4, 4), generator=torch.Generator().manual_seed(0))
        >>> log_likelihood_objective(glow)(images.float()).shape
        torch.Size([2])
    """
    first = model.chain[0]
    if not isinstance(first, (UniformDequantize, VariationalDequantize)):
        return lambda x: model.evaluate(x).value

    def objective(x: Tensor) -> Tensor:
        x = x.to(model.dtype)
        with torch.no_grad():
            whole = x.round()
            z, total, *_ = first.encode(whole)
            levels = torch.as_tensor(first.levels, dtype=x.dtype, device=x.device)
        step = model.chain[1:].encode(z + (x - whole) / levels)
        return total + step.contribution + model.base.log_prob(step.z)

    return objective


def gate_aware_objective(
    objective: Objective, features: Objective, reference: Tensor, bandwidth: float, weight: float
) -> Objective:
    """An objective for attacks that also evade a two-sample test of the batch: mean objective - weight MMD^2.

    Args:
        objective: function to maximize for each row.
        features: differentiable features of the gate.
        reference: features of rows that the attacker has, ``(N, d)``, such as the reference of the gate.
        bandwidth: bandwidth of the Gaussian kernel.
        weight: weight of MMD^2, in units of the objective; MMD^2 is between 0 and 2.

    Returns:
        A function from rows ``(n, *shape)`` to a scalar; the rows of a batch are attacked together.

    Raises:
        ConfigError: for a bandwidth or a weight that is not positive.

    Example:
        >>> import torch
        >>> from pushforward.detection import gate_aware_objective
        >>> def total(x):
        ...     return x.flatten(1).sum(1)
        >>> def features(x):
        ...     return x.flatten(1)
        >>> objective = gate_aware_objective(total, features, reference=torch.zeros(10, 4), bandwidth=1.0, weight=2.0)
        >>> objective(torch.zeros(3, 4)).shape
        torch.Size([])
    """
    bandwidth, weight = check_positive("bandwidth", bandwidth), check_positive("weight", weight)

    def combined(x: Tensor) -> Tensor:
        found = features(x)
        return objective(x).mean() - weight * mmd_squared(found, reference.to(found), bandwidth)

    return combined


def _gradient(value: Tensor, x: Tensor) -> Tensor:
    if not value.requires_grad:
        raise InputError("the objective has no gradient with respect to its input: compute it with gradients enabled.")
    (gradient,) = torch.autograd.grad(value, x, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else torch.nan_to_num(gradient)
