"""Relative Mahalanobis distances of inner layers."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore
from pushforward.detection.network.scores.gaussian import (
    check_rows,
    relative_distance,
    relative_form,
    whitening,
)
from pushforward.detection.network.streaming import Gathered
from pushforward.numerics.checks import check_positive

__all__ = ["LayerRelativeMahalanobis"]


class LayerRelativeMahalanobis(NetworkScore):
    """Sum over inner layers of the Mahalanobis distance to the nearest class minus that to all rows together.

    The distance of Ren et al. 2021 (arXiv 2106.09022, eq. 3) at each inner layer, averaged over positions. In the difference those
    directions cancel in which the classes do not differ, such as the brightness of a photograph.

    Args:
        floor: smallest variance along a principal direction, relative to the mean variance.
        single: whether to score in single precision where the network computes in it, which is faster.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.LayerRelativeMahalanobis()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    needs = frozenset({"layers", "logits"})

    def __init__(self, floor: float = 1e-6, single: bool = False) -> None:
        super().__init__()
        self.floor, self.single = check_positive("floor", floor, zero=True), bool(single)
        self.declare(packed=1, sizes=1)

    packed: Tensor
    sizes: Tensor

    def _learn(self, gathered: Gathered) -> None:
        packed, sizes = [], []
        for name in gathered.layers:
            moments = gathered.moments[f"layer {name}"]
            check_rows(moments.rows, type(self).__name__)
            factor = whitening(moments.within, self.floor)
            means = (moments.means[moments.counts > 0] - moments.mean) @ factor
            form = relative_form(factor, means, whitening(moments.covariance, self.floor))
            packed += [moments.mean, *(part.flatten() for part in form)]
            sizes += [len(factor), len(form[1]), len(means)]
        self.packed, self.sizes = torch.cat(packed), torch.tensor(sizes, dtype=torch.float64)

    def _derive(self, dtype: torch.dtype) -> list[tuple[Tensor, ...]]:
        """Origin of each layer, and its :func:`relative_form`."""
        layers, start = [], 0
        for width, kept, count in self.sizes.long().reshape(-1, 3).tolist():
            lengths = [width, width * kept, kept, width * count, count]
            origin, projections, signs, directions, squares = (
                self.packed[start : start + sum(lengths)].to(dtype).split(lengths)
            )
            form = (projections.reshape(width, kept), signs, directions.reshape(width, count), squares)
            layers.append((origin, *form))
            start += sum(lengths)
        return layers

    def _score(self, reading: Reading) -> Tensor:
        dtype = self.precision(reading)
        layers = zip(reading.layers.values(), self.prepared(dtype), strict=True)
        return torch.stack([relative_distance(rows.to(dtype) - origin, form) for rows, (origin, *form) in layers]).sum(
            0
        )
