"""Maximum softmax at the temperature that fits labeled rows best."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore, logits_of
from pushforward.detection.network.streaming import Gathered

__all__ = ["Temperature", "fit_temperature"]


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T with the smallest ``mean -log softmax(f / T)_y`` (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    The loss is convex in 1/T, so Newton's method on its derivative, safeguarded by bisection, finds the minimum; T is between
    0.01 and 100.
    """
    logits, rows = logits.double(), torch.arange(len(logits))
    own = logits[rows, labels]

    def slopes(beta: float) -> tuple[float, float]:
        p = torch.softmax(beta * logits, 1)
        mean = (p * logits).sum(1)
        return float((mean - own).mean()), float(((p * logits.square()).sum(1) - mean.square()).mean())

    low, high, beta = 0.01, 100.0, 1.0
    for _ in range(100):
        first, second = slopes(beta)
        low, high = (low, beta) if first > 0 else (beta, high)
        step = beta - first / second if second > 0 else 0.0
        new = step if low < step < high else (low * high) ** 0.5
        if abs(new - beta) <= 1e-12 * beta:
            break
        beta = new
    return 1.0 / beta


class Temperature(NetworkScore):
    """Maximum softmax p at the temperature that minimizes the cross-entropy of the training labels (Guo et al. 2017), as log-odds.

    The score is ``-log(p / (1 - p))``, which orders inputs as -p does and does not round where p is almost 1: a network that fits its
    training labels perfectly gets a small T.

    Attributes:
        temperature: T.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.Temperature()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    needs = frozenset({"logits", "labels"})

    def __init__(self) -> None:
        super().__init__()
        self.declare(temperature=0)

    temperature: Tensor

    def _learn(self, gathered: Gathered) -> None:
        value = fit_temperature(gathered.sample["logits"], gathered.sample["labels"])
        self.temperature = torch.tensor(value, dtype=torch.float64)

    def _score(self, reading: Reading) -> Tensor:
        top = (logits_of(reading) / self.temperature).sort(1, descending=True).values
        return torch.logsumexp(top[:, 1:], 1) - top[:, 0]
