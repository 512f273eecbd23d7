"""How much a transform of R^d into R^D stretches area: 1/2 log det J^T J, its value, and estimators of its gradient alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vjp, vmap

from pushforward.numerics.jacobian import push_forward

__all__ = ["Solve", "conjugate_gradients", "encoder_surrogate", "log_volume", "volume_surrogate"]

Decode = Callable[[Tensor], Tensor]


def log_volume(columns: Tensor) -> Tensor:
    """1/2 log det J^T J by Cholesky factors in float64, shape ``batch``; +inf where J^T J has no full rank to rounding.

    There g is no immersion and no density with respect to area exists: -log volume is -inf, as for any impossible row.

    Args:
        columns: J, ``(*batch, D, d)``.
    """
    wide = columns.double()
    factor, failed = torch.linalg.cholesky_ex(wide.mT @ wide)
    good = failed == 0
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    volume = torch.where(good[..., None], diagonal, 1.0).log().sum(-1)
    return torch.where(good, volume, math.inf).to(columns.dtype)


class Solve(NamedTuple):
    """What conjugate gradients found.

    Attributes:
        solution: ``(*batch, d)``.
        iterations: that were made.
        residual: norm(b - A x) / norm(b) of each row, shape ``batch``; above the tolerance where it did not get there.
    """

    solution: Tensor
    iterations: int
    residual: Tensor


@torch.no_grad()
def conjugate_gradients(product: Callable[[Tensor], Tensor], b: Tensor, tolerance: float, steps: int) -> Solve:
    """Solve A x = b for each row, with A symmetric and positive (Hestenes and Stiefel 1952).

    A row that has arrived stays where it is; a row that meets a direction without curvature stops, and its residual says so.

    Args:
        product: v -> A v, ``(*batch, d)`` to the same shape.
        b: ``(*batch, d)``.
        tolerance: of norm(b - A x) / norm(b).
        steps: at most; d suffice but for rounding.
    """
    x, r = torch.zeros_like(b), b
    p, square = r, b.square().sum(-1, keepdim=True)
    start, done = square, 0
    for done in range(1, steps + 1):
        image = product(p)
        curvature = (p * image).sum(-1, keepdim=True)
        going = (square > tolerance**2 * start) & (curvature > 0)
        if not going.any():
            done -= 1
            break
        length = torch.where(going, square / torch.where(going, curvature, 1.0), 0.0)
        x, r = x + length * p, r - length * image
        following = r.square().sum(-1, keepdim=True)
        p = torch.where(going, r + following / torch.where(square > 0, square, 1.0) * p, p)
        square = following
    residual = (square / torch.where(start > 0, start, 1.0)).sqrt().squeeze(-1)
    return Solve(x, done, residual)


def volume_surrogate(
    decode: Decode, z: Tensor, *, probes: int = 1, tolerance: float = 1e-3, generator: torch.Generator | None = None
) -> tuple[Tensor, Solve]:
    """A number whose **gradient** is, in the mean, that of 1/2 log det J^T J; its value means nothing.

    1/2 u^T (J^T J) e with u = (J^T J)^-1 e held fixed, for random signs e (Caterini et al. 2021, arXiv 2106.01413): u by
    conjugate gradients, whose products need one forward and one backward pass each, so J is never built.

    Args:
        decode: g, from ``(*batch, d)`` to ``(*batch, *shape)``.
        z: ``(*batch, d)``.
        probes: K, averaged; the error of the gradient falls as 1 / sqrt(K).
        tolerance: of the linear solver. A loose one biases the gradient.
        generator: of the signs.

    Returns:
        The surrogate, shape ``batch``, and the solve with its iterations and residual.
    """
    z = z.expand(probes, *z.shape)
    signs = torch.randint(2, z.shape, generator=generator, device=z.device)
    e = (2 * signs - 1).to(z.dtype)
    with torch.no_grad():
        fixed = z.detach()
        pull = vjp(decode, fixed)[1]
        solve = conjugate_gradients(lambda v: pull(push_forward(decode, fixed, v)[1])[0], e, tolerance, 2 * z.shape[-1])
    pushed = vmap(lambda v: push_forward(decode, z, v)[1])(torch.stack((solve.solution, e)))
    value = 0.5 * (pushed[0] * pushed[1]).flatten(z.dim() - 1).sum(-1)
    return value.mean(0), solve


def encoder_surrogate(
    codes: Decode, decode: Decode, x: Tensor, z: Tensor, *, probes: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """A number whose **gradient** is, in the mean, that of -1/2 log det J^T J where codes and decode are inverse on the surface.

    v^T J_f(x) stop_gradient[J_g(z) v], v random with orthogonal columns of length sqrt(d), f = codes and g = decode: only the
    way to the codes is pushed, and no system is solved (Sorrenson et al. 2024, arXiv 2306.01843).

    Args:
        codes: f, from ``(*batch, *shape)`` to ``(*batch, d)``.
        decode: g, back.
        x: where f is linearized.
        z: ``(*batch, d)``; no gradient passes through it.
        probes: K at most d, averaged; with K = d nothing is random.
        generator: of the directions.

    Returns:
        Shape ``batch``.
    """
    width = z.shape[-1]
    drawn = torch.randn((*z.shape, min(probes, width)), generator=generator, dtype=z.dtype, device=z.device)
    directions = (torch.linalg.qr(drawn)[0] * math.sqrt(width)).movedim(-1, 0)
    fixed = z.detach()
    with torch.no_grad():
        pushed = vmap(lambda v: push_forward(decode, fixed, v)[1])(directions)
    back = vmap(lambda w: push_forward(codes, x, w)[1])(pushed)
    return (directions * back).sum(-1).mean(0)
