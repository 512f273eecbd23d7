"""Deep SVDD on features: distance from the center of a hypersphere that a small network learns."""

from __future__ import annotations

import torch
from torch import Tensor

from pushforward.detection.network.reading import Reading
from pushforward.detection.network.scores.base import NetworkScore
from pushforward.detection.network.streaming import Gathered
from pushforward.numerics.checks import check_integer, check_positive

__all__ = ["DeepSVDD"]


class DeepSVDD(NetworkScore):
    """``||g(z) - c||^2`` of the standardized features, with g a small network trained to make it small (Ruff et al. 2018, eq. 4).

    g has two layers without biases and leaky ReLU, so that it cannot become constant; c is the mean of g before training, with
    coordinates at least 0.1 from 0, as in the paper's code.

    Args:
        size: width of g.
        max_steps: of Adam.
        weight_decay: of the weights.
        seed: of weights and batches.

    Example:
        >>> import torch, pushforward as pf
        >>> _ = torch.manual_seed(0)
        >>> x, y = torch.randn(600, 4), torch.arange(600) % 3
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
        >>> score = pf.detection.network.DeepSVDD(max_steps=20)
        >>> guard = pf.NetworkGuard(net, alpha=0.05, score=score).fit((x[:300], y[:300]), calibration=x[300:])
        >>> guard(torch.tensor([[30.0, -30.0, 30.0, 30.0]])).p_value.shape
        torch.Size([1])
    """

    def __init__(self, size: int = 64, max_steps: int = 500, weight_decay: float = 1e-4, seed: int = 0) -> None:
        super().__init__()
        self.size, self.max_steps = check_integer("size", size), check_integer("max_steps", max_steps)
        self.weight_decay, self.seed = (
            check_positive("weight_decay", weight_decay, zero=True),
            check_integer("seed", seed, 0),
        )
        self.declare(origin=1, scale=1, first=2, second=2, center=1)

    origin: Tensor
    scale: Tensor
    first: Tensor
    second: Tensor
    center: Tensor

    def _learn(self, gathered: Gathered) -> None:
        rows = gathered.sample["features"].double()
        self.origin, spread = rows.mean(0), rows.std(0, correction=0)
        self.scale = torch.where(spread > 1e-6 * spread.mean(), spread, 1.0)
        rows = (rows - self.origin) / self.scale
        generator = torch.Generator().manual_seed(self.seed)
        width = rows.shape[1]
        first = torch.randn(width, self.size, generator=generator, dtype=torch.float64) * (2 / width) ** 0.5
        second = (
            torch.randn(self.size, self.size // 2 or 1, generator=generator, dtype=torch.float64)
            * (2 / self.size) ** 0.5
        )
        center = _map(rows, first, second).mean(0)
        center = torch.where(center.abs() < 0.1, torch.where(center < 0, -0.1, 0.1), center)
        with torch.enable_grad():
            weights = [first.requires_grad_(), second.requires_grad_()]
            optimizer = torch.optim.Adam(weights, 1e-3, weight_decay=self.weight_decay)
            for _ in range(self.max_steps):
                batch = rows[torch.randint(len(rows), (min(256, len(rows)),), generator=generator)]
                loss = (_map(batch, *weights) - center).square().sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.first, self.second, self.center = first.detach(), second.detach(), center

    def _score(self, reading: Reading) -> Tensor:
        rows = (reading.features.double() - self.origin) / self.scale
        return (_map(rows, self.first, self.second) - self.center).square().sum(1)


def _map(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return torch.nn.functional.leaky_relu(rows @ first, 0.1) @ second
