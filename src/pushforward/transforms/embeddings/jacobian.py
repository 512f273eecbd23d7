"""The log-volume of an embedding of R^d in R^D, 1/2 log det J^T J: its value, and estimators of its gradient."""

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


def log_volume(jacobian: Tensor, tolerance: float = 4e-8) -> Tensor:
    """1/2 log det J^T J in nats, ``(*batch, D, d)`` to ``batch``; +inf where J does not have rank d.

    Where J does not have rank d there is no density with respect to area, and the row is impossible.

    It is computed in float64 from the Cholesky factor of the cosines of the columns: the units of the codes do not
    matter, and the pivot of a column shows if the column is nearly a combination of others.

    Args:
        jacobian: J, ``(*batch, D, d)``.
        tolerance: smallest pivot of a column of full rank, relative to its length; the default is rounding in float64.
    """
    finite = torch.isfinite(jacobian)
    columns = torch.where(finite, jacobian, 0.0).double()
    square = columns.square().sum(-2)
    nonzero = (square > 0) & finite.all(-2)
    size = torch.where(nonzero, square, 1.0).sqrt()
    unit = columns / size.unsqueeze(-2)
    gram = unit.mT @ unit
    factor, info = torch.linalg.cholesky_ex(gram.detach())
    full = (info == 0) & (factor.diagonal(dim1=-2, dim2=-1).amin(-1) > tolerance) & nonzero.all(-1)
    safe = torch.where(full[..., None, None], gram, torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device))
    factor = torch.linalg.cholesky_ex(safe)[0]
    log_det = size.log().sum(-1) + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.where(full, log_det, math.inf).to(jacobian.dtype)


class Solve(NamedTuple):
    """Result of conjugate gradients.

    Attributes:
        solution: ``(*batch, d)``.
        iterations: number of iterations.
        residual: norm(b - A x) / norm(b) of each row, shape ``batch``; above the tolerance where it did not converge.
    """

    solution: Tensor
    iterations: int
    residual: Tensor


@torch.no_grad()
def conjugate_gradients(product: Callable[[Tensor], Tensor], b: Tensor, tolerance: float, steps: int) -> Solve:
    """Solve A x = b for each row, with A symmetric and positive definite (Hestenes and Stiefel 1952).

    A row that has converged does not change any more. A row that finds a direction without curvature stops, with a residual
    above the tolerance.

    Args:
        product: v -> A v, ``(*batch, d)`` to the same shape.
        b: ``(*batch, d)``.
        tolerance: bound on norm(b - A x) / norm(b).
        steps: largest number of iterations; without rounding d are enough.
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
    """A number whose expected **gradient** is that of 1/2 log det J^T J; its value has no meaning.

    1/2 u^T (J^T J) e with u = (J^T J)^-1 e held fixed, for random signs e (Caterini et al. 2021, arXiv 2106.01413): u by
    conjugate gradients, whose products take one forward and one backward pass each, so J is never formed.

    Args:
        decode: g, from ``(*batch, d)`` to ``(*batch, *shape)``.
        z: ``(*batch, d)``.
        probes: number K of probes, which are averaged; the error of the gradient falls as 1 / sqrt(K).
        tolerance: tolerance of the linear solver. A large one biases the gradient.
        generator: random generator of the signs.

    Returns:
        The surrogate, shape ``batch``, and the :class:`Solve` with its iterations and residual.
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
    """A number whose expected **gradient** is that of -1/2 log det J^T J, if codes is the inverse of decode on the manifold.

    v^T J_f(x) stop_gradient[J_g(z) v], v random with orthogonal columns of length sqrt(d), f = codes and g = decode: only
    f is differentiated, and no linear system is solved (Sorrenson et al. 2024, arXiv 2306.01843).

    Args:
        codes: f, from ``(*batch, *shape)`` to ``(*batch, d)``.
        decode: g, from ``(*batch, d)`` to ``(*batch, *shape)``.
        x: ``(*batch, *shape)``, where f is linearized.
        z: ``(*batch, d)``; no gradient passes through it.
        probes: number of probes K, at most d, which are averaged; with K = d nothing is random.
        generator: random generator of the directions.

    Returns:
        Shape ``batch``.
    """
    width = z.shape[-1]
    drawn = torch.randn((*z.shape, min(probes, width)), generator=generator, dtype=z.dtype, device=z.device)
    directions = (torch.linalg.qr(drawn)[0] * math.sqrt(width)).movedim(-1, 0)
    fixed = z.detach()
    with torch.no_grad():
        pushed = vmap(lambda v: push_forward(decode, fixed, v)[1])(directions)
    pulled = vmap(lambda w: push_forward(codes, x, w)[1])(pushed)
    return (directions * pulled).sum(-1).mean(0)
