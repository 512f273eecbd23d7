"""ReAct: energy after large activations are clipped."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore
from pushforward.detection.network.streaming import Gathered
from pushforward.numerics.checks import check_number

__all__ = ["ReAct"]


class ReAct(NetworkScore):
    """``-logsumexp(W min(z, c) + b)``, with c a quantile of all training activations (Sun et al. 2021, arXiv 2111.12797).

    Args:
        percentile: of the activations, as a fraction; the paper's value is 0.9.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.ReAct()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    needs = frozenset({"logits", "head"})

    def __init__(self, percentile: float = 0.9) -> None:
        super().__init__()
        self.percentile = check_number("percentile", percentile, 0, 1)
        self.declare(threshold=0, weight=2, bias=1)

    threshold: Tensor
    weight: Tensor
    bias: Tensor

    def _learn(self, gathered: Gathered) -> None:
        import numpy as np  # torch.quantile refuses more than 2^24 values

        assert gathered.weight is not None
        assert gathered.bias is not None
        self.weight, self.bias = gathered.weight.cpu(), gathered.bias.cpu()
        value = np.percentile(gathered.sample["features"].double().numpy(), 100 * self.percentile)
        self.threshold = torch.tensor(float(value), dtype=torch.float64)

    def _score(self, reading: Reading) -> Tensor:
        clipped = torch.minimum(reading.features.double(), self.threshold)
        return -torch.logsumexp(clipped @ self.weight.T + self.bias, 1)
