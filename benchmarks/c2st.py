"""Classifier two-sample test with many classifiers at once, as sbibm defines it (Lopez-Paz and Oquab 2017; Lueckmann et al. 2021).

The classifier is the multilayer perceptron of scikit-learn at its defaults: two layers of 10 D rectified units, Adam with
learning rate 1e-3, batches of 200 rows, L2 penalty 1e-4, and training until the loss fell by less than 1e-4 in ten passes.
scikit-learn trains one at a time; here all folds of all pairs of samples train together in batched products, which takes
about a third of the time. ``tests/benchmarks/test_c2st.py`` compares both.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["c2st", "c2st_many"]

_RATE, _BETA1, _BETA2, _EPS = 1e-3, 0.9, 0.999, 1e-8
_BATCH, _PENALTY, _TOLERANCE, _PATIENCE, _FOLDS = 200, 1e-4, 1e-4, 10, 5


def c2st(x: Tensor, y: Tensor, *, seed: int = 1) -> float:
    """Cross-validated accuracy of a classifier between two samples ``(n, D)``: 0.5 if it cannot tell them apart, at most 1."""
    return c2st_many([(x, y)], seed=seed)[0]


@torch.no_grad()
def c2st_many(pairs: Sequence[tuple[Tensor, Tensor]], *, seed: int = 1, most: int = 10_000) -> list[float]:
    """:func:`c2st` of several pairs of samples of one size.

    Args:
        pairs: samples x and y, each ``(n, D)``; both are standardized with the mean and deviation of x.
        seed: of the folds, the weights and the order of the rows.
        most: largest number of passes.
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    count, width = len(pairs[0][0]), pairs[0][0].shape[1]
    labels = torch.cat((torch.zeros(count), torch.ones(count)))
    folds = [torch.from_numpy(part) for part in np.array_split(rng.permutation(2 * count), _FOLDS)]
    size = 2 * count - max(map(len, folds))
    data, training = [], []
    for x, y in pairs:
        mean, std = x.mean(0), x.std(0)
        data.append(torch.cat(((x - mean) / std, (y - mean) / std)).float())
        training += [
            torch.cat([part for other, part in enumerate(folds) if other != fold])[:size] for fold in range(_FOLDS)
        ]
    rows = torch.stack(training)
    owner = torch.arange(len(pairs)).repeat_interleave(_FOLDS)
    networks = _Networks(len(rows), width, generator)
    everything = torch.stack(data)
    final = [torch.empty(0)] * len(rows)
    active = torch.arange(len(rows))
    best, waited = torch.full((len(rows),), torch.inf), torch.zeros(len(rows))
    for _ in range(most):
        order = rows[active].gather(1, torch.rand(len(active), size, generator=generator).argsort(1))
        inputs, targets = everything[owner[active][:, None], order], labels[order]
        losses = torch.zeros(len(active))
        for begin in range(0, size, _BATCH):
            part = slice(begin, min(begin + _BATCH, size))
            losses += networks.step(inputs[:, part], targets[:, part]) * (part.stop - begin) / size
        waited[active] = torch.where(losses > best[active] - _TOLERANCE, waited[active] + 1, 0.0)
        best[active] = torch.minimum(best[active], losses)
        ended = waited[active] > _PATIENCE
        if bool(ended.any()):
            for place in ended.nonzero()[:, 0].tolist():
                final[int(active[place])] = networks.weights[place].clone()
            networks.keep(~ended)
            active = active[~ended]
        if not len(active):
            break
    for place, index in enumerate(active.tolist()):
        final[index] = networks.weights[place]
    scores = []
    for index, weights in enumerate(final):
        fold = folds[index % _FOLDS]
        logits = networks.forward(weights[None], everything[owner[index]][fold][None])[-1][0]
        scores.append(float(((logits > 0).float() == labels[fold]).float().mean()))
    return [float(np.mean(scores[begin : begin + _FOLDS])) for begin in range(0, len(scores), _FOLDS)]


class _Networks:
    """Stacked perceptrons with their Adam state; the weights of each are one row."""

    def __init__(self, count: int, width: int, generator: torch.Generator) -> None:
        hidden = 10 * width
        self.shapes = [(width, hidden), (hidden, hidden), (hidden, 1)]
        parts = []
        for fan_in, fan_out in self.shapes:
            bound = (6 / (fan_in + fan_out)) ** 0.5
            values = torch.rand(count, (fan_in + 1) * fan_out, generator=generator)
            parts.append(bound * (2 * values - 1))
        self.weights = torch.cat(parts, 1)
        self.first, self.second = torch.zeros_like(self.weights), torch.zeros_like(self.weights)
        penalized = [torch.cat((torch.ones(i * o), torch.zeros(o))) for i, o in self.shapes]
        self.penalty = _PENALTY * torch.cat(penalized)
        self.count = 0

    def keep(self, which: Tensor) -> None:
        """Drop the other networks."""
        self.weights, self.first, self.second = (t[which] for t in (self.weights, self.first, self.second))

    def split(self, weights: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Matrices ``(k, in, out)`` and biases ``(k, 1, out)``."""
        found, start = [], 0
        for i, o in self.shapes:
            matrix = weights[:, start : start + i * o].reshape(-1, i, o)
            found.append((matrix, weights[:, start + i * o : start + (i + 1) * o].reshape(-1, 1, o)))
            start += (i + 1) * o
        return found

    def forward(self, weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Two hidden layers and the logits ``(k, n)``."""
        (w1, b1), (w2, b2), (w3, b3) = self.split(weights)
        h1 = torch.baddbmm(b1, x, w1).relu_()
        h2 = torch.baddbmm(b2, h1, w2).relu_()
        return h1, h2, torch.baddbmm(b3, h2, w3)[..., 0]

    def step(self, x: Tensor, y: Tensor) -> Tensor:
        """One step of Adam of every network, and its loss before the step, with the penalty."""
        rows = x.shape[1]
        h1, h2, logits = self.forward(self.weights, x)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(1)
        loss = loss + 0.5 * (self.penalty * self.weights.square()).sum(1) / rows
        _, (w2, _), (w3, _) = self.split(self.weights)
        d3 = ((torch.sigmoid(logits) - y) / rows)[..., None]
        d2 = (d3 @ w3.mT).mul_(h2 > 0)
        d1 = (d2 @ w2.mT).mul_(h1 > 0)
        parts = []
        for inputs, delta in ((x, d1), (h1, d2), (h2, d3)):
            parts += [(inputs.mT @ delta).flatten(1), delta.sum(1)]
        gradient = torch.cat(parts, 1).addcmul_(self.penalty, self.weights, value=1 / rows)
        self.count += 1
        self.first.lerp_(gradient, 1 - _BETA1)
        self.second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        rate = _RATE * (1 - _BETA2**self.count) ** 0.5 / (1 - _BETA1**self.count)
        self.weights.addcdiv_(self.first, self.second.sqrt().add_(_EPS), value=-rate)
        return loss
