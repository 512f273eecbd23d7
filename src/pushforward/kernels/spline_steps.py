"""Splines solved one place after the other, in plain operations: of each place only what the next one waits for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.kernels.spline import SplineLaw, _Bin, _fraction, _kept_running, _slope_at
from pushforward.numerics import eager

__all__ = ["SplineSteps"]


class SplineSteps:
    """x_i = f_i^-1(y_i) for places i whose parameters come one after the other: the numbers of :func:`spline`.

    With few rows an operation costs what its call costs, so a step has few of them: the six numbers of the piece that
    holds a y come out of one table by one index, and log-slopes are left for all places together. No gradients.

    Args:
        y: ``(places, rows)``, an ordinary tensor on the CPU.
        law: of the splines, not periodic.
    """

    def __init__(self, y: Tensor, law: SplineLaw) -> None:
        self.law, (_, self.rows) = law, y.shape
        self.x, self.inside = torch.empty_like(y), y.abs() < law.bound
        safe = y.clamp(-law.bound, law.bound)
        self.todo = zip(*(t.split(1) for t in (y, safe, self.inside, self.x)), strict=True)
        self.start, self.sums = _kept_running(law, y.dtype)
        # Left knots, bottom knots and raw slopes over their bound, K + 1 rows each. The slopes at the ends stay 0.
        table = y.new_zeros(3, law.bins + 1, self.rows)
        self.flat, self.knots, self.inner = table.view(-1), table[:2], table[1, 1:-1]
        self.slopes, self.steepest = table[2, 1:-1].unsqueeze(1), y.new_tensor(law.steepest)
        self.above, self.ones = y.new_empty(law.bins - 1, self.rows), y.new_ones(1, law.bins - 1)
        each = law.bins + 1
        places = torch.tensor([0, each, 1, each + 1, 2 * each, 2 * each + 1])
        self.corners = places.unsqueeze(1) * self.rows + torch.arange(self.rows)
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []

    @staticmethod
    def serves(*tensors: Tensor) -> bool:
        """Whether these are ordinary tensors of one type on the CPU, and no gradient or trace is wanted."""
        return (
            not torch.is_grad_enabled()
            and eager()
            and all(t.device.type == "cpu" and t.dtype == tensors[0].dtype for t in tensors)
            and all(type(t) in (Tensor, nn.Parameter) for t in tensors)
        )

    def step(self, raw: Tensor) -> Tensor:
        """x of the next place, ``(1, rows)``, by its raw parameters, ``(parameters, 1, rows)``."""
        y, safe, inside, x = next(self.todo)
        sizes = 2 * self.law.bins
        share = torch.softmax(raw[:sizes].view(2, self.law.bins, self.rows), 1)
        torch.baddbmm(self.start, self.sums, share, out=self.knots)
        torch.div(raw[sizes:], self.steepest, out=self.slopes)
        torch.ge(safe, self.inner, out=self.above)
        piece = torch.mm(self.ones, self.above).long()
        at = torch.add(self.corners, piece, alpha=self.rows).view(-1)
        corners = self.flat.index_select(0, at).view(6, 1, self.rows)
        left, bottom, right, top = corners[:4].unbind(0)
        slopes = torch.exp(torch.tanh(corners[4:]) * self.steepest)
        piece = _Bin(left, right - left, bottom, top - bottom, *slopes.unbind(0))
        q = _fraction(safe - bottom, piece)
        self.found.append((corners, slopes, q))
        return torch.where(inside, torch.addcmul(left, q, piece.width), y, out=x)

    def solved(self) -> tuple[Tensor, Tensor]:
        """x and log f'(x), ``(places, rows)``, after the last step."""
        corners, slopes, q = (torch.cat(t, -2) for t in zip(*self.found, strict=True))
        left, bottom, right, top = corners[:4].unbind(0)
        piece = _Bin(left, right - left, bottom, top - bottom, *slopes.unbind(0))
        return self.x, torch.where(self.inside, _slope_at(q, piece), 0.0)
