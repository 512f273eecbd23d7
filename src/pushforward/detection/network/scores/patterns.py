"""Agreement of the features with stored patterns of the classes: SHE."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore, predicted
from pushforward.detection.network.streaming import Gathered

__all__ = ["SHE"]


class SHE(NetworkScore):
    """``-<z, s_c>`` for the predicted class c; s_c is the mean of its correctly classified rows (Zhang et al. 2023, ICLR, eq. 8).

    A class without a correctly classified row has the pattern 0.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.SHE()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    needs = frozenset({"logits", "labels"})

    def __init__(self) -> None:
        super().__init__()
        self.declare(patterns=2)

    patterns: Tensor

    def _learn(self, gathered: Gathered) -> None:
        sample = gathered.sample
        right = sample["labels"] == sample["predicted"]
        rows, labels = sample["features"][right].double(), sample["labels"][right]
        sums = rows.new_zeros(gathered.classes, rows.shape[1]).index_add_(0, labels, rows)
        self.patterns = sums / torch.bincount(labels, minlength=gathered.classes).clamp(min=1).unsqueeze(1)

    def _score(self, reading: Reading) -> Tensor:
        return -(reading.features.double() * self.patterns[predicted(reading)]).sum(1)
