"""KL matching: the distance of the softmax from the usual softmax of a class."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore, logits_of
from pushforward.detection.network.streaming import Gathered

__all__ = ["KLMatching"]


class KLMatching(NetworkScore):
    """``min_k KL(p || d_k)``, with d_k the mean softmax of the rows that are predicted as class k (Hendrycks et al. 2022).

    A class that no row is predicted as has no d_k.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.KLMatching()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    needs = frozenset({"logits"})

    def __init__(self) -> None:
        super().__init__()
        self.declare(log_templates=2)

    log_templates: Tensor

    def _learn(self, gathered: Gathered) -> None:
        p = torch.softmax(gathered.sample["logits"].double(), 1)
        predicted = gathered.sample["predicted"]
        templates = torch.stack([p[predicted == k].mean(0) for k in predicted.unique()])
        self.log_templates = templates.clamp(min=1e-300).log()

    def _score(self, reading: Reading) -> Tensor:
        log_p = torch.log_softmax(logits_of(reading), 1)
        p = log_p.exp()
        return ((p * log_p).sum(1, keepdim=True) - p @ self.log_templates.T).amin(1)
