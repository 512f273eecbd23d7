"""Splines solved one place after the other, in plain operations: of each place only what the next one waits for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.kernels.spline import SplineSettings, _fraction, _kept_running, _slope_at
from pushforward.numerics import is_eager

__all__ = ["SplineSteps"]


class SplineSteps:
    """x_i = f_i^-1(y_i) for places i whose parameters come one after the other: the numbers of :func:`spline`.

    With few rows an operation costs what its call costs, so a step has few of them, between views of buffers that are
    made once: the six numbers of the piece that holds a y come out of one table by one index, and log-slopes are left for
    the places of a block together. No gradients.

    Args:
        law: of the splines, not periodic.
        places: in a block, at most.
        rows: of each place.
        like: a tensor of the type wanted, on the CPU.
    """

    def __init__(self, law: SplineSettings, places: int, rows: int, like: Tensor) -> None:
        bins, each = law.bins, law.bins + 1
        self.law, self.rows = law, rows
        self.raw = like.new_empty(law.parameters, rows)
        """Where the parameters of the next place go."""
        self.sizes, self.raw_slopes = self.raw[: 2 * bins].view(2, bins, rows), self.raw[2 * bins :]
        self.start, self.sums = _kept_running(law, like.dtype)
        # Left knots, bottom knots and raw slopes, K + 1 rows each. The slopes at the ends stay 0.
        table = like.new_zeros(3, each, rows)
        self.flat, self.knots, self.inner = table.view(-1), table[:2], table[1, 1:-1]
        self.bent, self.steepest = table[2, 1:-1], like.new_tensor(law.steepest)
        self.above, self.ones = like.new_empty(bins - 1, rows), like.new_ones(1, bins - 1)
        ends = torch.tensor([[0], [each], [1], [each + 1], [2 * each], [2 * each + 1]])
        self.ends = ends * rows + torch.arange(rows)
        corners = like.new_empty(6, 1, rows)
        self.corners, self.slopes = corners.view(-1), corners[4:]
        self.starts, self.stops, self.extent = corners[:2], corners[2:4], like.new_empty(2, 1, rows)
        self.left, self.bottom = self.starts.unbind(0)
        self.width, self.height = self.extent.unbind(0)
        self.kept = like.new_empty(3, places, rows)
        """Ratio of width to height and slopes at both ends, of the places of a block."""
        ratios, slopes = self.kept[0].split(1), self.kept[1:].split(1, 1)
        self.views = [(ratio, both, *both.unbind(0)) for ratio, both in zip(ratios, slopes, strict=True)]

    @staticmethod
    def serves(*tensors: Tensor) -> bool:
        """Whether these are ordinary tensors of one type on the CPU, and no gradient or trace is wanted."""
        return (
            not torch.is_grad_enabled()
            and is_eager()
            and all(t.device.type == "cpu" and t.dtype == tensors[0].dtype for t in tensors)
            and all(type(t) in (Tensor, nn.Parameter) for t in tensors)
        )

    def begin(self, y: Tensor) -> None:
        """The next block: ``(places, rows)``."""
        bound = self.law.bound
        self.y, self.inside, self.x, self.fractions = y, y.abs() < bound, torch.empty_like(y), []
        self.outside = (~self.inside).any(1).tolist()
        self.todo = zip(self.views, y.clamp(-bound, bound).split(1), self.x.split(1), strict=False)

    def step(self) -> Tensor:
        """x of the next place, ``(1, rows)``."""
        (ratio, slopes, start, end), y, x = next(self.todo)
        torch.baddbmm(self.start, self.sums, torch.softmax(self.sizes, 1), out=self.knots)
        torch.div(self.raw_slopes, self.steepest, out=self.bent)
        # By counting the inner knots that are not above y, as the plain spline does.
        torch.ge(y, self.inner, out=self.above)
        piece = torch.mm(self.ones, self.above).long()
        torch.index_select(self.flat, 0, torch.add(self.ends, piece, alpha=self.rows).view(-1), out=self.corners)
        torch.sub(self.stops, self.starts, out=self.extent)
        torch.exp(torch.tanh(self.slopes).mul_(self.steepest), out=slopes)
        torch.div(self.width, self.height, out=ratio)
        q = _fraction((y - self.bottom) / self.height, ratio, start, end)
        torch.addcmul(self.left, q, self.width, out=x)
        place = len(self.fractions)
        self.fractions.append(q)
        if self.outside[place]:
            torch.where(self.inside[place], x, self.y[place], out=x)
        return x

    def solved(self) -> tuple[Tensor, Tensor]:
        """x and log f'(x) of a block, ``(places, rows)``, after its last step."""
        ratio, start, end = self.kept[:, : len(self.x)].unbind(0)
        slopes = _slope_at(torch.cat(self.fractions), ratio.reciprocal(), start, end)
        return self.x, torch.where(self.inside, slopes, 0.0)
