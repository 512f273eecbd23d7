"""OpenMax: the probability of an unknown class from the tails of distances to class means."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore, logits_of
from pushforward.detection.network.streaming import Gathered
from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer

__all__ = ["OpenMax"]

_TRANSLATION = 10_000.0
"""libMR fits the Weibull distribution to distances moved by this much, minus the smallest of the tail."""


class OpenMax(NetworkScore):
    """Probability of the unknown class after OpenMax (Bendale & Boult 2016, arXiv 1511.06233, algorithm 2).

    The distance of the logits from each class mean is compared with the ``tail`` largest training distances of the class, by a
    Weibull distribution w with location 0 fitted by maximum likelihood to ``d - min + 10000``, as the paper's libMR does. The
    activations of the ``alpha`` largest classes lose ``f_c w_c (alpha - rank) / alpha``, and the unknown class gets the sum. Means and
    distances are of the training rows of a class that the network classifies correctly (algorithm 1), or of all of its rows where fewer
    than three of them are.

    Args:
        tail: number of largest distances per class.
        alpha: number of largest classes that are revised.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.OpenMax()
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    needs = frozenset({"logits", "labels"})

    def __init__(self, tail: int = 25, alpha: int = 10) -> None:
        super().__init__()
        self.tail, self.alpha = check_integer("tail", tail, 2), check_integer("alpha", alpha)
        self.declare(means=2, shapes=1, scales=1, smallest=1)

    means: Tensor
    shapes: Tensor
    scales: Tensor
    smallest: Tensor

    def _learn(self, gathered: Gathered) -> None:
        logits, labels = gathered.sample["logits"].double(), gathered.sample["labels"]
        correct = labels == gathered.sample["predicted"]
        means, found = [], []
        for k in range(gathered.classes):
            own = labels == k
            if int(own.sum()) < 2:
                raise InputError(
                    f"OpenMax needs at least two training rows of every class; class {k} has {int(own.sum())}."
                )
            rows = logits[own & correct] if int((own & correct).sum()) > 2 else logits[own]
            means.append(rows.mean(0))
            tail = (rows - means[k]).norm(dim=1).sort().values[-self.tail :]
            found.append((*fit_weibull(tail - tail[0] + _TRANSLATION), float(tail[0])))
        self.means = torch.stack(means)
        self.shapes, self.scales, self.smallest = torch.tensor(found, dtype=torch.float64).T.contiguous()

    def _score(self, reading: Reading) -> Tensor:
        logits = logits_of(reading)
        distance = torch.cdist(logits, self.means, compute_mode="donot_use_mm_for_euclid_dist")
        moved = (distance - self.smallest + _TRANSLATION).clamp(min=0)
        ratio = torch.minimum(
            moved / self.scales, 1e3 ** (1 / self.shapes)
        )  # above, w is 1, and its gradient must not be inf * 0
        w = -torch.expm1(-(ratio**self.shapes))
        alpha = min(self.alpha, logits.shape[1])
        order = logits.argsort(1, descending=True)[:, :alpha]
        ranked = torch.zeros_like(logits).scatter(
            1,
            order,
            torch.linspace(1, 1 / alpha, alpha, dtype=logits.dtype, device=logits.device).expand(len(logits), -1),
        )
        lost = logits * w * ranked
        revised = torch.cat((lost.sum(1, keepdim=True), logits - lost), 1)
        return torch.softmax(revised, 1)[:, 0]


def fit_weibull(values: Tensor) -> tuple[float, float]:
    """Shape k and scale of a Weibull distribution with location 0, by maximum likelihood.

    k solves ``sum x^k log x / sum x^k - 1/k = mean log x``; the left side increases with k, so bisection finds it. Values that are
    all equal give a shape of 1e9.
    """
    log_x = values.double().log()
    center = log_x.mean()
    low, high = 1e-3, 1e9

    def excess(k: float) -> float:
        weight = torch.softmax(k * (log_x - center), 0)
        return float((weight * (log_x - center)).sum()) - 1 / k

    for _ in range(200):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if excess(middle) > 0 else (middle, high)
    k = (low * high) ** 0.5
    log_scale = center + (torch.logsumexp(k * (log_x - center), 0) - torch.log(torch.tensor(float(len(log_x))))) / k
    return k, float(log_scale.exp())
