"""Gram matrices of inner layers: deviations from the ranges of the predicted class."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore, predicted
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer, check_number

__all__ = ["GramMatrices", "gram_rows"]


def gram_rows(values: Tensor, power: int) -> Tensor:
    """The p-th root of the row sums of the Gram matrix ``F^p F^pT`` of each input, ``(n, channels)``; signs are kept.

    The paper's formula is the root of each entry, ``G_p = (F^p F^pT)^(1/p)``; its authors' program takes that of the sums, as here.

    Args:
        values: F, ``(n, channels, ...)``; of a sequence ``(n, T, D)`` the D features are the channels.
        power: p.
    """
    rows = values.double()
    rows = rows.unsqueeze(2) if rows.dim() == 2 else rows.transpose(1, 2) if rows.dim() == 3 else rows.flatten(2)
    rows = rows**power
    sums = (rows * rows.sum(1, keepdim=True)).sum(2)  # the row sums of F F^T, without the matrix
    size = torch.where(sums == 0, 1.0, sums.abs())  # the root has no slope at 0
    return sums.sign() * size ** (1 / power)


class GramMatrices(NetworkScore):
    """Sum over layers and powers of the deviations of Gram matrices from the ranges of the class (Sastry & Oore 2020).

    arXiv 1912.12510: for each row sum g of the Gram matrix of order p, the deviation from the range of the training rows of the predicted
    class is ``(min - g) / |min|`` below and ``(g - max) / |max|`` above it. The deviations of a layer are divided by their
    mean on a tenth of the training rows, which do not set the ranges.

    Args:
        powers: the orders are 1 to ``powers``.
        held_out: fraction of the rows for the means; 0 leaves the layers as they are.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.GramMatrices()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).alarm
        tensor([True])
    """

    needs = frozenset({"labels", "maps"})

    def __init__(self, powers: int = 5, held_out: float = 0.1) -> None:
        super().__init__()
        self.powers = check_integer("powers", powers, most=20)
        self.held_out = check_number("held_out", held_out, 0, 1, closed="left")
        self.declare(least=2, most=2, scale=1)

    least: Tensor
    most: Tensor
    scale: Tensor

    def observe(self, reading: Reading) -> dict[str, Tensor]:
        """The row sums of every layer and order, and the layer of each."""
        values = [gram_rows(maps, power) for maps in reading.maps.values() for power in range(1, self.powers + 1)]
        return {f"grams {self.powers}": torch.cat(values, 1)}

    def _learn(self, gathered: Gathered) -> None:
        rows, labels = gathered.sample[f"grams {self.powers}"], gathered.sample["labels"]
        generator = torch.Generator().manual_seed(gathered.seed)
        held = torch.rand(len(rows), generator=generator, dtype=torch.float32) < self.held_out
        least, most = [], []
        for k in range(gathered.classes):
            own = rows[(labels == k) & ~held]
            if len(own) == 0:
                raise InputError(f"GramMatrices needs training rows of every class; class {k} has none.")
            least.append(own.amin(0))
            most.append(own.amax(0))
        self.least, self.most = torch.stack(least), torch.stack(most)
        widths = [gathered.moments[f"layer {name}"].mean.numel() for name in gathered.layers]
        layer = torch.repeat_interleave(
            torch.arange(len(widths)), torch.tensor(widths).repeat_interleave(1) * self.powers
        )
        deviations = self._deviations(rows[held], labels[held])
        means = torch.ones(len(widths), dtype=torch.float64)
        if len(deviations):
            sums = torch.zeros(len(widths), dtype=torch.float64).index_add_(0, layer, deviations.mean(0))
            means = torch.where(sums > 0, sums, 1.0)
        self.scale = means[layer]

    def _deviations(self, rows: Tensor, classes: Tensor) -> Tensor:
        least, most = self.least[classes], self.most[classes]
        below = (least - rows).clamp(min=0) / (least + 1e-6).abs()
        return below + (rows - most).clamp(min=0) / (most + 1e-6).abs()

    def _score(self, reading: Reading) -> Tensor:
        rows = self.observe(reading)[f"grams {self.powers}"]
        return (self._deviations(rows, predicted(reading)) / self.scale).sum(1)
