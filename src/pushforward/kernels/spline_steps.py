"""The inverse of splines in plain operations, one place after the other, as each needs the result of the one before."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pushforward.kernels.spline_reference import SplineSettings, cached_knot_map, fraction, log_slope_at
from pushforward.numerics import is_eager

__all__ = ["SplineSteps"]


class SplineSteps:
    """x_i = f_i^-1(y_i) for places i whose parameters become known one after the other; the numbers of :func:`spline`.

    With few rows an operation costs as much as its call. So a step has few operations, on views of buffers that are
    allocated once: one index reads the six numbers of a bin from one table, and log-slopes are computed for all places
    of a block together. No gradients.

    Args:
        settings: of the splines, not periodic.
        places: the most places of a block.
        rows: of each place.
        like: a tensor of the floating type to use, on the CPU.

    Example:
        >>> import torch
        >>> from pushforward.kernels import SplineSteps
        >>> SplineSteps.serves(torch.zeros(2).half())
        False
    """

    def __init__(self, settings: SplineSettings, places: int, rows: int, like: Tensor) -> None:
        bins, each = settings.bins, settings.bins + 1
        self.settings, self.rows = settings, rows
        self.raw = like.new_empty(settings.parameters, rows)
        """The raw parameters of the next place, to be written by the caller."""
        self.sizes, self.raw_slopes = self.raw[: 2 * bins].view(2, bins, rows), self.raw[2 * bins :]
        self.start, self.sums = cached_knot_map(settings, like.dtype)
        # Left knots, bottom knots and raw slopes, K + 1 rows each. The raw slopes at the ends stay 0.
        table = like.new_zeros(3, each, rows)
        self.flat, self.knots, self.inner = table.view(-1), table[:2], table[1, 1:-1]
        self.bent, self.steepest = table[2, 1:-1], like.new_tensor(settings.steepest)
        self.above, self.ones = like.new_empty(bins - 1, rows), like.new_ones(1, bins - 1)
        ends = torch.tensor([[0], [each], [1], [each + 1], [2 * each], [2 * each + 1]], device=like.device)
        self.ends = ends * rows + torch.arange(rows, device=like.device)
        corners = like.new_empty(6, 1, rows)
        self.corners, self.slopes = corners.view(-1), corners[4:]
        self.starts, self.stops, self.extent = corners[:2], corners[2:4], like.new_empty(2, 1, rows)
        self.left, self.bottom = self.starts.unbind(0)
        self.width, self.height = self.extent.unbind(0)
        self.kept = like.new_empty(3, places, rows)
        """Ratio of width to height and the slopes at both knots, of all places of a block."""
        ratios, slopes = self.kept[0].split(1), self.kept[1:].split(1, 1)
        self.views = [(ratio, both, *both.unbind(0)) for ratio, both in zip(ratios, slopes, strict=True)]

    @staticmethod
    def serves(*tensors: Tensor) -> bool:
        """Whether these are ordinary tensors of one type on the CPU, without gradient or tracing."""
        return (
            not torch.is_grad_enabled()
            and is_eager()
            and all(t.device.type == "cpu" and t.dtype == tensors[0].dtype for t in tensors)
            and all(type(t) in (Tensor, nn.Parameter) for t in tensors)
        )

    def begin(self, y: Tensor) -> None:
        """Start the next block, y ``(places, rows)``."""
        bound = self.settings.bound
        self.y, self.inside, self.x, self.fractions = y, y.abs() < bound, torch.empty_like(y), []
        self.outside = (~self.inside).any(1).tolist()
        self.todo = zip(self.views, y.clamp(-bound, bound).split(1), self.x.split(1), strict=False)

    def step(self) -> Tensor:
        """Solve the next place: x ``(1, rows)``."""
        (ratio, slopes, start, end), y, x = next(self.todo)
        torch.baddbmm(self.start, self.sums, torch.softmax(self.sizes, 1), out=self.knots)
        torch.div(self.raw_slopes, self.steepest, out=self.bent)
        # The bin, by counting the inner knots that are not above y, as the reference does.
        torch.ge(y, self.inner, out=self.above)
        index = torch.mm(self.ones, self.above).long()
        torch.index_select(self.flat, 0, torch.add(self.ends, index, alpha=self.rows).view(-1), out=self.corners)
        torch.sub(self.stops, self.starts, out=self.extent)
        torch.exp(torch.tanh(self.slopes).mul_(self.steepest), out=slopes)
        torch.div(self.width, self.height, out=ratio)
        q = fraction((y - self.bottom) / self.height, ratio, start, end)
        torch.addcmul(self.left, q, self.width, out=x)
        place = len(self.fractions)
        self.fractions.append(q)
        if self.outside[place]:
            torch.where(self.inside[place], x, self.y[place], out=x)
        return x

    def solved(self) -> tuple[Tensor, Tensor]:
        """x and log f'(x) of the block, ``(places, rows)``, after its last step."""
        ratio, start, end = self.kept[:, : len(self.x)].unbind(0)
        slopes = log_slope_at(torch.cat(self.fractions), ratio.reciprocal(), start, end)
        return self.x, torch.where(self.inside, slopes, 0.0)
