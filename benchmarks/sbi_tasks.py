"""The eight tasks of sbibm (Lueckmann et al. 2021) whose reference posteriors are in the data folder: priors and simulators.

Simulators read parameters ``(n, D)`` and draw from torch's global generator. Differential equations are solved in torch, by
Runge-Kutta steps of fixed length, for all parameters at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td

from pushforward.errors import StorageError

__all__ = ["TASKS", "Task", "load_task", "observation", "reference"]


@dataclass(frozen=True)
class Task:
    """A prior and a simulator."""

    name: str
    prior: td.Distribution
    simulator: Callable[[Tensor], Tensor]


def two_moons(theta: Tensor) -> Tensor:
    angle = math.pi * (torch.rand(len(theta)) - 0.5)
    radius = 0.1 + 0.01 * torch.randn(len(theta))
    first = radius * torch.cos(angle) + 0.25 - (theta[:, 0] + theta[:, 1]).abs() / math.sqrt(2)
    second = radius * torch.sin(angle) + (theta[:, 1] - theta[:, 0]) / math.sqrt(2)
    return torch.stack((first, second), 1)


def slcp(theta: Tensor) -> Tensor:
    s1, s2, rho = theta[:, 2] ** 2, theta[:, 3] ** 2, torch.tanh(theta[:, 4])
    noise = torch.randn(len(theta), 4, 2)
    first = s1[:, None] * noise[..., 0]
    second = s2[:, None] * (rho[:, None] * noise[..., 0] + (1 - rho**2).sqrt()[:, None] * noise[..., 1])
    return (torch.stack((first, second), -1) + theta[:, None, :2]).reshape(-1, 8)


def gaussian_mixture(theta: Tensor) -> Tensor:
    scale = torch.where(torch.rand(len(theta), 1) < 0.5, 1.0, 0.1)
    return theta + scale * torch.randn_like(theta)


def gaussian_linear(theta: Tensor) -> Tensor:
    return theta + math.sqrt(0.1) * torch.randn_like(theta)


def sir(theta: Tensor, population: float = 1e6, step: float = 0.25) -> Tensor:
    def slope(s: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
        infections = beta * s * i / population
        return -infections, infections - gamma * i

    beta, gamma = theta.double().unbind(1)
    s, i = torch.full_like(beta, population - 1), torch.ones_like(beta)
    kept = [i]
    for count in range(1, round(153 / step) + 1):
        a, b = slope(s, i)
        c, d = slope(s + step / 2 * a, i + step / 2 * b)
        e, f = slope(s + step / 2 * c, i + step / 2 * d)
        g, h = slope(s + step * e, i + step * f)
        s, i = s + step / 6 * (a + 2 * c + 2 * e + g), i + step / 6 * (b + 2 * d + 2 * f + h)
        if count % round(17 / step) == 0:
            kept.append(i)
    return torch.binomial(torch.full((len(theta), 10), 1000.0), (torch.stack(kept, 1) / population).clamp(0, 1).float())


def lotka_volterra(theta: Tensor, step: float = 0.02) -> Tensor:
    def slope(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return alpha - beta * y.exp(), delta * x.exp() - gamma  # of the logarithms

    alpha, beta, gamma, delta = theta.double().unbind(1)
    x, y = torch.full_like(alpha, math.log(30.0)), torch.zeros_like(alpha)
    kept = [torch.stack((x, y))]
    for count in range(1, round(18.9 / step) + 1):
        a, b = slope(x, y)
        c, d = slope(x + step / 2 * a, y + step / 2 * b)
        e, f = slope(x + step / 2 * c, y + step / 2 * d)
        g, h = slope(x + step * e, y + step * f)
        x, y = x + step / 6 * (a + 2 * c + 2 * e + g), y + step / 6 * (b + 2 * d + 2 * f + h)
        if count % round(2.1 / step) == 0:
            kept.append(torch.stack((x, y)))
    path = torch.stack(kept, -1).clamp(math.log(1e-10), math.log(1e4))  # (2, n, 10)
    return (path.permute(1, 0, 2).reshape(len(theta), 20) + 0.1 * torch.randn(len(theta), 20)).exp().float()


def _bernoulli_glm(folder: Path) -> tuple[td.Distribution, Callable[[Tensor], Tensor]]:
    design = torch.from_numpy(np.load(folder / "design_matrix.npy")).float()
    stimulus = torch.from_numpy(np.load(folder / "stimulus_I.npy")).float()
    width = 9
    difference = torch.eye(width) - torch.diag(torch.ones(width - 1), -1)
    filter_ = difference @ difference + torch.diag(torch.arange(width) / width) ** 0.5
    precision = torch.zeros(10, 10)
    precision[0, 0] = 0.5
    precision[1:, 1:] = filter_.T @ filter_

    def simulator(theta: Tensor) -> Tensor:
        spikes = (torch.rand(len(theta), len(design)) < torch.sigmoid(theta @ design.T)).float()
        triggered = torch.nn.functional.conv1d(spikes[:, None], stimulus.reshape(1, 1, -1), padding=8)[:, 0, -9:]
        return torch.cat((spikes.sum(1, keepdim=True), triggered), 1)

    return td.MultivariateNormal(torch.zeros(10), precision_matrix=precision), simulator


def _box(width: int, bound: float) -> td.Distribution:
    return td.Uniform(-bound * torch.ones(width), bound * torch.ones(width))


_PLAIN: dict[str, tuple[Callable[[], td.Distribution], Callable[[Tensor], Tensor]]] = {
    "two_moons": (lambda: _box(2, 1.0), two_moons),
    "slcp": (lambda: _box(5, 3.0), slcp),
    "gaussian_mixture": (lambda: _box(2, 10.0), gaussian_mixture),
    "gaussian_linear": (lambda: td.MultivariateNormal(torch.zeros(10), 0.1 * torch.eye(10)), gaussian_linear),
    "gaussian_linear_uniform": (lambda: _box(10, 1.0), gaussian_linear),
    "sir": (lambda: td.LogNormal(torch.tensor([0.4, 0.125]).log(), torch.tensor([0.5, 0.2])), sir),
    "lotka_volterra": (
        lambda: td.LogNormal(torch.tensor([-0.125, -3.0, -0.125, -3.0]), 0.5 * torch.ones(4)), lotka_volterra,
    ),
}  # fmt: skip
TASKS = (*_PLAIN, "bernoulli_glm")


def load_task(name: str, folder: Path) -> Task:
    """A task by name.

    Raises:
        StorageError: if its data are not there.
    """
    if not (folder / "sbibm" / name).exists():
        raise StorageError(f"{folder}/sbibm/{name} is not there: it holds the observations and reference posteriors.")
    if name == "bernoulli_glm":
        return Task(name, *_bernoulli_glm(folder / "sbibm" / name))
    prior, simulator = _PLAIN[name]
    return Task(name, prior(), simulator)


def observation(name: str, number: int, folder: Path) -> Tensor:
    """Observation 1 to 5, ``(width,)``."""
    path = folder / "sbibm" / name / f"num_observation_{number}" / "observation.csv"
    return torch.from_numpy(np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32)).reshape(-1)


def reference(name: str, number: int, folder: Path) -> Tensor:
    """Draws of the reference posterior, ``(10000, D)``."""
    path = folder / "sbibm" / name / f"num_observation_{number}" / "reference_posterior_samples.csv.bz2"
    return torch.from_numpy(np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32))
