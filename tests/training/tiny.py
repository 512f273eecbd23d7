"""Small models and data for the tests of training."""

from __future__ import annotations

import itertools
import random

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

import pushforward as pf
from pushforward.models.base import Model
from pushforward.training.input_spec import InputSpec
from pushforward.training.sources import Position

SPEC = InputSpec("Model", (1,), 0, torch.float32, torch.device("cpu"))


def gaussian(features: int = 2) -> Model:
    """A diagonal Gaussian with a trained mean and scale, which starts as the standard normal."""
    return pf.models.Flow(pf.transforms.ActNorm(features), pf.distributions.Normal(features))


def rows(count: int, features: int = 2, *, seed: int = 0, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, generator=generator) * scale + mean


def curved(count: int, *, seed: int = 0) -> Tensor:
    """Three columns that a Gaussian does not describe."""
    x = rows(count, 3, seed=seed)
    x[:, 1] = 0.3 * x[:, 1] + x[:, 0] ** 2
    x[:, 2] = 0.3 * x[:, 2] + torch.sin(2 * x[:, 0])
    return x


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Bitwise."""
    return first.keys() == second.keys() and all(
        first[key].dtype == second[key].dtype
        and first[key].contiguous().numpy().tobytes() == second[key].contiguous().numpy().tobytes()
        for key in first
    )


class Items(Dataset):
    """Items of an array, each with noise from every global generator that a data set may draw from."""

    def __init__(self, x: Tensor, noise: float = 0.0) -> None:
        self.x, self.noise = x, noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        item = self.x[index].clone()
        if self.noise:
            item += self.noise * (random.random() + np.random.random() + torch.rand(()).item())  # noqa: NPY002
        return item


def silent(model: Model, data, **options):
    """``pf.fit`` without progress."""
    return pf.fit(model, data, progress="silent", **options)


def numbered(count: int) -> Tensor:
    """A column with the numbers of its rows."""
    return torch.arange(count, dtype=torch.float32)[:, None]


def take(source, count: int, start: Position = Position()):  # noqa: B008
    """The next batches of a source."""
    return list(itertools.islice(source.batches(start), count))
