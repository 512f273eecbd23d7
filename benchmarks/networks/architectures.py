"""The networks that the benchmark trains: a small convolutional network, a residual network and a perceptron."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ResNet", "SmallCNN", "build"]


class SmallCNN(nn.Module):
    """Three convolutions, one hidden layer with dropout, and a linear head."""

    def __init__(self, channels: int, side: int, classes: int, features: int = 128) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.conv2, self.norm2 = nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64)
        self.conv3, self.norm3 = nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64)
        reduced = (side + 3) // 4
        self.hidden, self.dropout = nn.Linear(64 * reduced * reduced, features), nn.Dropout(0.3)
        self.head = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        x = F.relu(self.norm3(self.conv3(x)))
        return self.head(self.dropout(F.relu(self.hidden(x.flatten(1)))))


class Block(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of residual blocks, the mean over positions, dropout, and a linear head."""

    def __init__(self, channels: int, classes: int, width: int = 16, blocks: int = 1) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        stages, inputs = [], width
        for k in range(3):
            for index in range(blocks):
                stages.append(Block(inputs, width << k, 2 if k and not index else 1))
                inputs = width << k
        self.stages = nn.Sequential(*stages)
        self.dropout, self.head = nn.Dropout(0.1), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(F.relu(self.norm(self.conv(x))))
        return self.head(self.dropout(x.mean((2, 3))))


def perceptron(columns: int, classes: int) -> nn.Module:
    """Two hidden layers with dropout."""
    return nn.Sequential(
        nn.Linear(columns, 128), nn.ReLU(), nn.Dropout(0.2), nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.2),
        nn.Linear(128, classes),
    )  # fmt: skip


def build(kind: str, shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """An untrained network: "cnn", "resnet" or "mlp", for inputs of this shape."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "cnn":
            return SmallCNN(shape[0], shape[1], classes)
        if kind == "resnet":
            return ResNet(shape[0], classes)
        return perceptron(shape[0], classes)
