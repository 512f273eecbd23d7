"""A small classifier of gray images, and images that are changed so that it errs: FGSM and its iteration (BIM)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushforward.detection import fgsm, pgd
from pushforward.training.seeds import preserved

__all__ = ["Classifier", "train_classifier"]


@dataclass(frozen=True)
class Classifier:
    """A trained network.

    Attributes:
        network: from pixels, 0 to 255, to logits.
    """

    network: nn.Module

    def right(self, x: Tensor, labels: Tensor) -> float:
        """The fraction of images that it classifies as labeled."""
        with torch.no_grad():
            return float((self.network(x.float()).argmax(1) == labels).float().mean())

    def attacked(self, x: Tensor, labels: Tensor, budget: float, steps: int) -> Tensor:
        """Images with pixels changed by at most ``budget`` levels so that the loss of the classifier grows: one step is FGSM."""

        def loss(pixels: Tensor) -> Tensor:
            return F.cross_entropy(self.network(pixels), labels, reduction="none")

        if steps == 1:
            return fgsm(loss, x, budget)
        return pgd(loss, x, budget, steps=steps, step=2 * budget / steps, random_start=False)


def train_classifier(x: Tensor, labels: Tensor, steps: int, *, batch: int = 128, seed: int = 0) -> Classifier:
    """Two convolutions and two layers, trained by Adam with cross-entropy.

    Args:
        x: images ``(n, 1, 28, 28)``, 0 to 255.
        labels: classes from 0 to 9, ``(n,)``.
        steps: of training.
        batch: rows of a step.
        seed: of weights and batches.
    """
    with preserved(torch.device("cpu")):
        torch.manual_seed(seed)
        network = nn.Sequential(
            _Unit(), nn.Conv2d(1, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 5, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 49, 100),
            nn.ReLU(), nn.Linear(100, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(network.parameters(), 1e-3)
        for _ in range(steps):
            rows = torch.randint(len(x), (batch,))
            loss = F.cross_entropy(network(x[rows].float()), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Classifier(network.eval().requires_grad_(False))


class _Unit(nn.Module):
    """Pixels from 0 to 255 as numbers from -1 to 1."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 127.5 - 1
