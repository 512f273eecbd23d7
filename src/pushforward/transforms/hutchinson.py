"""Parts of Hutchinson's trace estimator that residual and continuous flows share."""

from __future__ import annotations

import math

from torch import Tensor

from pushforward.numerics import RowNoise

__all__ = ["common_signs", "mean_of_draws"]


def mean_of_draws(draws: Tensor) -> tuple[Tensor, None, Tensor | None]:
    """Contribution, residual and standard error of a step from draws ``(count, *batch)``; no error from one draw."""
    count, mean = len(draws), draws.mean(0)
    if count == 1:
        return mean, None, None
    return mean, None, ((draws - mean).detach().square().sum(0) / (count * (count - 1))).sqrt()


def common_signs(noise: RowNoise, count: int, salt: int, like: Tensor, dims: int = 1) -> Tensor:
    """Probes of +1 and -1 that depend on the seed alone, ``(count, *like.shape)``: the same for every row.

    The last ``dims`` dimensions of ``like`` are the event.
    """
    event = like.shape[-dims:]
    signs = noise.common_signs(count * math.prod(event), salt, like)
    rows = signs.reshape(count, *(1,) * (like.dim() - dims), *event)
    return rows.expand(count, *like.shape)
