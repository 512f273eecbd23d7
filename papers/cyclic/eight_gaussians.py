"""Eight Gaussians on a circle, and how far chains are from them: in the shapes of the modes and in their fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pushforward.models import CyGen

__all__ = ["accepted", "drift", "eight", "energy_distance", "fractions", "jumps", "modes", "restarted"]

MODES = 8


def eight(count: int, seed: int, weights: Sequence[float] | None = None) -> Tensor:
    """Eight normals of deviation 0.1 on a circle of radius 2, equally likely unless there are weights."""
    rng = np.random.default_rng(seed)
    if weights is None:
        mode = rng.integers(MODES, size=count)
    else:
        mode = rng.choice(MODES, size=count, p=np.asarray(weights) / np.sum(weights))
    angle = mode * math.pi / 4
    return torch.from_numpy(2 * np.stack((np.cos(angle), np.sin(angle)), 1) + 0.1 * rng.normal(size=(count, 2))).float()


def _centers() -> Tensor:
    angle = torch.arange(MODES) * math.pi / 4
    return 2 * torch.stack((angle.cos(), angle.sin()), 1)


def modes(x: Tensor) -> int:
    """Centers that have at least a quarter of their expected fraction of the samples within three deviations."""
    return int((((torch.cdist(x, _centers()) < 0.3).float().mean(0)) > 0.25 / MODES).sum())


def nearest(x: Tensor) -> Tensor:
    """The index of the nearest center of each row."""
    return torch.cdist(x, _centers()).argmin(1)


def fractions(x: Tensor) -> Tensor:
    """The fraction of rows that are nearest to each center, ``(8,)``, float64."""
    return torch.bincount(nearest(x), minlength=MODES).double() / len(x)


def energy_distance(x: Tensor, y: Tensor, first: Tensor | None = None, second: Tensor | None = None) -> float:
    """2 E |x - y| - E |x - x'| - E |y - y'|, over pairs of different rows, with weights of the rows that sum to 1."""
    x, y = x.double(), y.double()
    if first is None or second is None:
        within = [torch.cdist(a, a).sum() / (len(a) * (len(a) - 1)) for a in (x, y)]
        return (2 * torch.cdist(x, y).mean() - within[0] - within[1]).item()
    within = [w @ torch.cdist(a, a) @ w / (1 - w.square().sum()) for a, w in ((x, first), (y, second))]
    return (2 * first @ torch.cdist(x, y) @ second - within[0] - within[1]).item()


def _weights(x: Tensor, wanted: Tensor) -> Tensor:
    """Weights of rows with which their modes have the wanted fractions; modes without rows stay empty."""
    found = fractions(x)
    weights = (wanted / found.clamp(min=1e-12) / len(x))[nearest(x)]
    return weights / weights.sum()


def drift(x: Tensor, test: Tensor, weights: Sequence[float] | None = None) -> dict[str, float]:
    """The distance of samples from test rows, and its two parts.

    Args:
        x: samples.
        test: rows of the true distribution.
        weights: the true weights of the modes; None for equal ones.

    Returns:
        "distance", the energy distance; "shapes", that of samples and rows whose modes are weighted to their true fractions;
        "fractions", that of rows whose modes are weighted to the fractions of the samples; and "variation", the total
        variation between the fractions of the samples and the true ones.
    """
    true = torch.full((MODES,), 1.0) if weights is None else torch.tensor(weights)
    true = true.double() / true.sum()
    found = fractions(x)
    at_truth = _weights(test, true)
    gap = _weights(test, found) - at_truth  # on the same rows, so that their spread cancels
    return {
        "distance": energy_distance(x, test),
        "shapes": energy_distance(x, test, _weights(x, true), at_truth),
        "fractions": -(gap @ torch.cdist(test.double(), test.double()) @ gap).item(),
        "variation": 0.5 * (found - true).abs().sum().item(),
    }


def jumps(model: CyGen, rows: Tensor, steps: int, seed: int) -> Tensor:
    """The fraction of chains from mode i that are in mode j after these Gibbs steps from data, ``(8, 8)``."""
    after = nearest(model.gibbs(len(rows), steps, seed=seed, start=rows))
    counts = torch.zeros(MODES, MODES, dtype=torch.float64)
    counts.index_put_((nearest(rows), after), torch.ones(len(rows), dtype=torch.float64), accumulate=True)
    return counts / counts.sum(1, keepdim=True).clamp(min=1.0)


def restarted(model: CyGen, rows: Tensor, steps: int, rate: float, rounds: int, seed: int) -> Tensor:
    """Gibbs chains that start again at a random data row with this probability after each round of steps.

    If K is the kernel of a round, the stationary law is that of a chain of a random number of rounds from data, so its
    total variation from the data is at most (1 - rate) / rate times that of one round.
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(rows)
    x = rows
    for index in range(rounds):
        again = torch.rand(count, generator=generator) < rate
        fresh = rows[torch.randint(count, (count,), generator=generator)]
        x = model.gibbs(count, steps, seed=1000 * seed + index, start=torch.where(again[:, None], fresh, x))
    return x


def accepted(chains: Tensor, rows: Tensor, new: Tensor, seed: int, passes: int = 20) -> Tensor:
    """Independent Metropolis-Hastings with the ends of chains as proposals (Turner et al. 2019, arXiv 1811.11357).

    A classifier of chains and training rows, of boosted trees, estimates the ratio of the densities.

    Args:
        chains: ends of chains that train the classifier, ``(n, 2)``.
        rows: training rows that do, ``(n, 2)``.
        new: ends of other chains, the proposals, ``(m, 2)``; each of m / passes draws sees ``passes`` of them.
        seed: seed of the classifier and of the draws.
        passes: number of proposals of a draw.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    labels = np.repeat([0, 1], [len(chains), len(rows)])
    trees = HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=16, random_state=seed)
    trees.fit(torch.cat((chains, rows)).numpy(), labels)
    chance = torch.from_numpy(np.asarray(trees.predict_proba(new.numpy()))[:, 1]).clamp(1e-6, 1 - 1e-6)
    ratio = (chance / (1 - chance)).reshape(passes, -1)
    proposals = new.reshape(passes, -1, 2)
    generator = torch.Generator().manual_seed(seed)
    state, current = proposals[0], ratio[0]
    for x, r in zip(proposals[1:], ratio[1:], strict=True):
        take = torch.rand(len(r), generator=generator, dtype=torch.float64) * current < r
        state, current = torch.where(take[:, None], x, state), torch.where(take, r, current)
    return state
