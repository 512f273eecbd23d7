"""Residual networks of digits: for the classes and the density with the same weights, for one of them alone, and without constraints."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from papers.experiment import Experiment
from pushforward.models import Model

__all__ = ["BOTH", "CLASSES", "DENSITY", "PLAIN", "Digits", "Found", "compare_purposes", "plain_blocks"]

BOTH, DENSITY, CLASSES, PLAIN = "both", "density alone", "classes alone", "plain network"


@dataclass(frozen=True)
class Digits:
    """Rows with labels, for training and for the test."""

    train: Tensor
    labels: Tensor
    test: Tensor
    test_labels: Tensor


@dataclass(frozen=True)
class Found:
    """Fractions of the test digits that are classified right, and bits/dim, by purpose, one value a seed."""

    right: dict[str, list[float]] = field(default_factory=dict)
    bits: dict[str, list[float]] = field(default_factory=dict)

    def as_good(self, points: float = 1.0) -> bool:
        """Whether the network for both classifies within some points of that for the classes alone and of the plain one, in the mean."""
        means = {purpose: sum(values) / len(values) for purpose, values in self.right.items()}
        return all(means[BOTH] > means[other] - points / 100 for other in (CLASSES, PLAIN))


def compare_purposes(
    experiment: Experiment,
    key: str,
    digits: Digits,
    flow: Callable[[], Model],
    plain: Callable[[], nn.Module],
    bits: Callable[[Model], float],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> Found:
    """Train a network for each purpose, with each seed, by the same loop.

    Args:
        experiment: that keeps the measurements.
        key: beginning of their names.
        digits: the rows.
        flow: function that makes the i-ResNet.
        plain: function that makes a network without constraints, whose outputs a linear layer classifies.
        bits: bits/dim of the test rows.
        steps: of AdamW.
        batch_size: rows of a step.
        learning_rate: of AdamW.
    """
    found = Found()
    for seed in experiment.few(3):
        for purpose in (BOTH, DENSITY, CLASSES, PLAIN):

            def run(purpose: str = purpose, seed: int = seed) -> dict[str, float]:
                torch.manual_seed(seed)
                network = plain() if purpose == PLAIN else flow()
                head = nn.Linear(digits.train[0].numel(), 10)
                _train(network, head, digits, purpose, seed, steps, batch_size, learning_rate)
                result = {}
                if purpose != DENSITY:
                    with torch.no_grad():
                        z = network.encode(digits.test) if isinstance(network, Model) else network(digits.test.float())
                        result["right"] = (head(z).argmax(1) == digits.test_labels).double().mean().item()
                if isinstance(network, Model) and purpose != CLASSES:
                    result["bits"] = bits(network)
                return result

            measured = experiment.measure(f"{key} {purpose} {seed}", run)
            for name, values in (("right", found.right), ("bits", found.bits)):
                if name in measured:
                    values.setdefault(purpose, []).append(measured[name])
    return found


def _train(
    network: nn.Module,
    head: nn.Linear,
    digits: Digits,
    purpose: str,
    seed: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    """Minimize the cross-entropy of the classes and -log p a coordinate, or one of the two."""
    draw = torch.Generator().manual_seed(seed)
    if isinstance(network, Model):
        network.initialize(digits.train[:2000], generator=draw)
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate)
    network.train()
    for _ in range(steps):
        rows = torch.randint(len(digits.train), (batch_size,), generator=draw)
        x, labels = digits.train[rows].float(), digits.labels[rows]
        optimizer.zero_grad()
        loss = torch.zeros(())
        if isinstance(network, Model):
            # One pass returns both: z for the head, and the contribution for the density.
            step = network.chain.encode(x, noise=draw)  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            z = step.z
            if purpose != CLASSES:
                loss = loss - (step.contribution + network.base.log_prob(z)).mean() / x[0].numel()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
        else:
            z = network(x)
        if purpose != DENSITY:
            loss = loss + nn.functional.cross_entropy(head(z), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
    network.eval()


class _Residual(nn.Module):
    """x + g(x)."""

    def __init__(self, g: nn.Module) -> None:
        super().__init__()
        self.g = g

    def forward(self, x: Tensor) -> Tensor:
        return x + self.g(x)


class _Standardize(nn.Module):
    """Subtract the mean of training rows, and divide by the standard deviation of all coordinates."""

    mean: Tensor
    scale: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        rows = rows.float()
        self.register_buffer("mean", rows.mean(0))
        self.register_buffer("scale", rows.std())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale


def plain_blocks(rows: Tensor, hidden: Sequence[int], blocks: int, scales: int = 1) -> nn.Sequential:
    """A residual network without constraints, of vectors or of images ``(n, C, H, W)``, with the layers of an i-ResNet; its outputs are flat.

    Images go through g with 3 x 3, 1 x 1 and 3 x 3 convolutions, and a squeeze between the scales.
    """
    layers: list[nn.Module] = [_Standardize(rows)]
    width = rows.shape[1]
    for scale in range(scales):
        if scale:
            layers.append(nn.PixelUnshuffle(2))
            width *= 4
        for _ in range(blocks):
            widths, g = [width, *hidden, width], []
            for k, (before, after) in enumerate(itertools.pairwise(widths)):
                side = 3 if k in (0, len(hidden)) else 1
                linear = (
                    nn.Linear(before, after) if rows.dim() == 2 else nn.Conv2d(before, after, side, padding=side // 2)
                )
                g += [linear, nn.ELU()]
            layers.append(_Residual(nn.Sequential(*g[:-1])))
    return nn.Sequential(*layers, nn.Flatten())
