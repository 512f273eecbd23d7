"""Kernel density estimate: a mixture of normals, one for each of many training rows, with a bandwidth chosen by likelihood."""

from __future__ import annotations

import math

import torch
from torch import Size, Tensor

from pushforward.distributions.base import Distribution
from pushforward.errors import InputError
from pushforward.numerics import bound_square, is_eager, split_infinite, sum_event
from pushforward.numerics.checks import check_integer, check_positive, check_seed
from pushforward.registry import register
from pushforward.transforms.base import Shape, check_event

__all__ = ["KernelDensity"]

_CELLS = 1 << 22
"""Most differences (rows times kept rows times coordinates) in memory at once."""
_LEFT_OUT = 500
"""Number of kept rows over which the leave-one-out likelihood is averaged."""
_NARROWEST, _WIDEST = 1e-3, 4.0


@register("distributions")
class KernelDensity(Distribution):
    """log p(z) = log (1/n) sum_j prod_i N(z_i; z_ji, (h s_i)^2) over n kept training rows z_j, s_i their deviations.

    Rosenblatt 1956 and Parzen 1962. It has no trainable parameters: :meth:`initialize`, which ``pf.fit`` calls with the training
    rows, keeps ``points`` of them (all, if there are fewer) and chooses the bandwidth h in [0.001, 4] with the highest
    leave-one-out likelihood sum_i log p_(-i)(z_i) (Duin 1976). Before that it is the standard normal. Use it for few coordinates,
    such as the codes of a :class:`~pushforward.models.TwoStep` model; the cost of a row is ``points`` times D.

    Args:
        features: width, or a shape such as (channels, height, width).
        points: most rows to keep; they are drawn at random without replacement.
        bandwidth: h; None to choose it by likelihood.
        seed: of the draw of rows.

    Raises:
        ConfigError: if ``points`` is not a positive integer, or ``bandwidth`` is not positive.

    Example:
        >>> import torch, pushforward as pf
        >>> x = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        >>> model = pf.models.Flow(pf.transforms.Standardize(2), KernelDensity(2, points=200))
        >>> pf.fit(model, x, progress="silent").stopped
        'nothing to train'
        >>> 0.2 < model.base.width.mean() < 0.6
        tensor(True)
    """

    has_rsample = False
    rows: Tensor
    width: Tensor
    """h s, with the shape of a row."""
    kept: Tensor
    initialized: Tensor

    def __init__(
        self, features: int | Shape, points: int = 2000, bandwidth: float | None = None, seed: int = 0
    ) -> None:
        check_integer("points", points)
        check_seed(seed)
        check_positive("bandwidth", bandwidth, optional=True)
        super().__init__(features)
        self.features, self.points, self.bandwidth, self.seed = features, points, bandwidth, seed
        self.register_buffer("rows", torch.zeros(points, *self.shape))
        self.register_buffer("width", torch.ones(self.shape))
        self.register_buffer("kept", torch.tensor(1))
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def initialize(self, z: Tensor, context: Tensor | None = None) -> None:
        """Keep rows of z and choose the bandwidth, at the first call only.

        Raises:
            InputError: if there are no rows, or a row is not finite.
        """
        if self.initialized:
            return
        rows = z.reshape(-1, *self.shape)
        if len(rows) == 0:
            raise InputError("a kernel density needs at least one training row; got none.")
        if not torch.isfinite(rows).all():
            raise InputError("a kernel density needs finite training rows; some rows are infinite or NaN.")
        if len(rows) > self.points:
            rows = rows[_shuffled(len(rows), check_seed(self.seed))[: self.points].to(rows.device)]
        spread = rows.double().std(0, correction=0)
        varies = rows.amax(0) > rows.amin(0)  # rounding of the mean gives a constant coordinate a tiny deviation
        spread = torch.where(varies & (spread > 0), spread, 1.0)
        h = self.bandwidth or _best_bandwidth((rows.double() / spread).flatten(1))
        self.rows.zero_()
        self.rows[: len(rows)] = rows
        self.width.copy_(h * spread)
        self.kept.fill_(len(rows))
        self.initialized.fill_(True)

    def log_prob(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density in nats: ``(*batch, *shape)`` to ``batch``."""
        check_event(z, self.shape, type(self).__name__)
        dims, size = len(self.shape), math.prod(self.shape)
        z, far = split_infinite(z, dims)
        batch = z.shape[: z.dim() - dims]
        flat, width = z.reshape(*batch, 1, size), self.width.reshape(size)
        rows = self.rows.reshape(self.points, size)
        count = max(1, _CELLS // max(1, math.prod(batch) * size)) if is_eager() else self.points
        # From differences, as |z|^2 - 2 z z_j + |z_j|^2 loses its digits where kernels are narrow.
        each = [sum_event(-0.5 * bound_square((flat - part) / width, size).square(), 1) for part in rows.split(count)]
        empty = torch.arange(self.points, device=z.device) >= self.kept
        logits = torch.cat(each, -1).masked_fill(empty, -math.inf)
        volume = width.log().sum() + self.kept.to(z.dtype).log() + 0.5 * math.log(2 * math.pi) * size
        return far + torch.logsumexp(logits, -1) - volume

    @torch.no_grad()
    def sample(self, batch: Size, context: Tensor | None = None, *, generator: torch.Generator | None = None) -> Tensor:
        """``(*batch, *shape)``: a kept row plus noise of its kernel."""
        like = self.like(generator)
        uniform = torch.rand(batch, generator=generator, dtype=torch.float64, device=like["device"])
        index = (uniform * self.kept).long().clamp(max=self.points - 1)
        return self.rows[index] + self.width * torch.randn((*batch, *self.shape), generator=generator, **like)


def _shuffled(count: int, seed: int) -> Tensor:
    """The indices of ``count`` rows in random order, on the CPU, whatever the default device is."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed), device="cpu")


def _best_bandwidth(rows: Tensor) -> float:
    """The h with the highest leave-one-out likelihood of rows ``(n, D)`` with deviations 1, by a grid and then golden section.

    If all rows are equal the likelihood has no maximum, and the result is the smallest bandwidth.
    """
    if len(rows) < 2:
        return 1.0
    if len(rows) > _LEFT_OUT:  # rows of a sorted table are no random sample of it
        rows = rows[_shuffled(len(rows), 0).to(rows.device)]
    some = rows[:_LEFT_OUT]
    # Products are accurate enough in float64: the error is 1e-16 D, and the square of the smallest bandwidth 1e-6.
    square = torch.cdist(some, rows).square()
    square.fill_diagonal_(math.inf)

    def score(log_h: float) -> float:
        return float(torch.logsumexp(-0.5 * math.exp(-2 * log_h) * square, 1).mean()) - rows.shape[1] * log_h

    low, high = math.log(_NARROWEST), math.log(_WIDEST)
    step = (high - low) / 40
    best = max((low + k * step for k in range(41)), key=score)
    a, b = max(low, best - step), min(high, best + step)
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(12):
        left, right = b - golden * (b - a), a + golden * (b - a)
        a, b = (a, right) if score(left) >= score(right) else (left, b)
    return math.exp(0.5 * (a + b))
